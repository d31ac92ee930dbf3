"""One pass over a data file."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Literal

from artifacts.contract import Reading, RecordFormat
from artifacts.records import BadRecord, DataFileError, RecordFile
from launcher.data_check.report import Bucket, Report
from launcher.data_check.tokens import TokenCount, token_buckets, tokens_of
from launcher.errors import Problem, UserError
from launcher.stages.data_run.fingerprints import FingerprintBag, Repeats, prompt_fingerprint

DEFAULT_MAX_LENGTH = 2048  # tokens, as training.max_length
_LISTED = 20


def check(
    path: Path,
    *,
    format: RecordFormat | Literal["auto"] = "auto",
    reading: Reading | None = None,
    tokenizer: Path | None = None,
    max_length: int = DEFAULT_MAX_LENGTH,
    against: FingerprintBag | None = None,
) -> Report:
    """Read every record of `path`. With `tokenizer`, a model folder, lengths are in tokens; with `against`,
    the prompts of another file, those that also occur there are counted.

    Raises UserError where the file is no data file or the folder has no usable tokenizer.
    """
    try:
        records = RecordFile(path, format, reading)
        with contextlib.ExitStack() as stack:
            counting = None
            if tokenizer is not None:
                counting = stack.enter_context(TokenCount(path, records, tokenizer, max_length))
            tally = _Tally(records)
            measured = counting.result() if counting else None
    except DataFileError as error:
        raise UserError(Problem(where="", what=str(path), why=error.why, way_out=error.way_out)) from None
    duplicates, near_duplicates = tally.repeats.count()
    return Report(
        path=str(path),
        size_bytes=records.size_bytes,
        said=records.said,
        format=records.format,
        records=tally.records,
        bad_records=tally.bad_records,
        bad=tally.bad,
        duplicates=duplicates,
        near_duplicates=near_duplicates,
        overlap=None if against is None else tally.prompts.count_in(against),
        lost=dict(records.lost),
        unit="tokens" if measured else "characters",
        histogram=token_buckets(measured) if measured else tally.buckets(),
        longest_characters=tally.longest,
        characters=tally.characters,
        tokens=tokens_of(measured, tokenizer, max_length) if measured and tokenizer else None,
    )


def prompts_of(path: Path) -> FingerprintBag:
    """What the good records of a file ask, to check another file against. Raises UserError."""
    prompts = FingerprintBag()
    try:
        for item in RecordFile(path):
            if not isinstance(item, BadRecord):
                prompts.add(prompt_fingerprint(item.record))
    except DataFileError as error:
        raise UserError(Problem(where="", what=str(path), why=error.why, way_out=error.way_out)) from None
    return prompts


class _Tally:
    """One pass over the records."""

    def __init__(self, records: RecordFile) -> None:
        self.records = self.bad_records = self.characters = self.longest = 0
        self.bad: list[BadRecord] = []
        self.repeats, self.prompts = Repeats(), FingerprintBag()
        self._sizes: Counter[int] = Counter()  # by bit length
        for item in records:
            if isinstance(item, BadRecord):
                self.bad_records += 1
                self.bad += [item] if len(self.bad) < _LISTED else []
                continue
            self.records += 1
            length = sum(len(message["content"]) for message in item.messages) or len(
                item.record.get("text", "")
            )
            self.characters += length
            self.longest = max(self.longest, length)
            self._sizes[(length - 1).bit_length()] += 1
            self.repeats.add(item.record)
            self.prompts.add(prompt_fingerprint(item.record))

    def buckets(self) -> list[Bucket]:
        """Each twice as wide as the one before."""
        if not self._sizes:
            return []
        return [Bucket(2**bits, self._sizes[bits]) for bits in range(min(self._sizes), max(self._sizes) + 1)]
