"""`slipway data check FILE`: what is in a data file, what is wrong with it, and how long its records are.

`check` reads; `render` is the text for people. Tokens are counted by a process of `train`, so that nothing
here imports a tokenizer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from artifacts.contract import EXIT_USER_ERROR, Reading, RecordFormat, canonical_json
from artifacts.dataset_info import DatasetInfoError, find_entry, read_entries
from artifacts.formats import FORMATS
from artifacts.formats.columns import ROLES
from artifacts.records import BadRecord, DataFileError, RecordFile
from launcher.backends.processes import environment
from launcher.errors import Problem, RunFailed, UserError
from launcher.stages.data_files import NoFilesError, local_files
from launcher.stages.data_run.fingerprints import FingerprintBag, fingerprint, near_fingerprint

DEFAULT_MAX_LENGTH = 2048  # tokens, as training.max_length
_LISTED = 20
_BAR_WIDTH = 40


@dataclass(frozen=True)
class Bucket:
    """Records of `up_to` units and more than the bucket before; None: all above."""

    up_to: int | None
    records: int


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What `prepare` would make of the good records. Numbers are those of records, the first ten."""

    tokenizer: str
    max_length: int
    truncated: int
    truncated_numbers: list[int]
    unsupervised: int  # records left with no supervised token
    unsupervised_numbers: list[int]
    refused: int  # by the chat template
    refused_reasons: list[str]
    total: int  # kept, after truncation
    supervised: int
    longest: int  # before truncation


@dataclass(frozen=True, kw_only=True)
class Report:
    path: str
    size_bytes: int
    said: str
    format: RecordFormat
    records: int
    bad_records: int
    bad: list[BadRecord]  # the first 20
    duplicates: int
    near_duplicates: int  # but for case, spaces and punctuation
    lost: dict[str, int]  # what of the records is not passed on (a column, a key of messages): records
    unit: Literal["tokens", "characters"]  # of the histogram
    histogram: list[Bucket]
    longest_characters: int
    characters: int
    tokens: Tokens | None = None

    @property
    def ok(self) -> bool:
        """Whether `data.on_error: stop` would let the file pass."""
        return self.bad_records == 0 and (self.records > 0 or self.format == "custom")


def known_format(name: str) -> RecordFormat | Literal["auto"]:
    """Raises UserError."""
    if name != "auto" and name not in FORMATS:
        why = f"not one of auto, {', '.join(FORMATS)}"
        raise UserError(Problem(where="", what=f"--format {name}", why=why))
    return cast("RecordFormat", name)


def column_names(options: list[str]) -> dict[str, str]:
    """`["prompt=question"]` -> `{"prompt": "question"}`. Raises UserError."""
    names = {}
    for option in options:
        role, _, name = option.partition("=")
        if role not in ROLES or not name:
            why, way_out = "is not ROLE=NAME", f"roles are {', '.join(ROLES)}"
            raise UserError(Problem(where="", what=f"--column {option}", why=why, way_out=way_out))
        names[role] = name
    return names


def data_files(
    name: str, format: RecordFormat | Literal["auto"], reading: Reading, dataset_info: Path | None = None
) -> list[tuple[Path, RecordFormat | Literal["auto"], Reading]]:
    """The files that `name` stands for (as in a job), and how each is read. Raises UserError."""
    try:
        if dataset_info is not None:
            entry = find_entry(dataset_info, read_entries(dataset_info), name)
            columns = {**entry.reading.columns, **reading.columns}
            reading = dataclasses.replace(reading, columns=columns, tags=entry.reading.tags)
            return [(Path(file), entry.format, reading) for file in local_files(entry.path)]
        return [(Path(file), format, reading) for file in local_files(Path(name))]
    except DatasetInfoError as error:
        raise UserError(Problem(where="", what=name, why=error.why, way_out=error.way_out)) from None
    except NoFilesError as error:
        fault = error.fault
        raise UserError(Problem(where="", what=name, why=fault.why, way_out=fault.way_out)) from None


def check(
    path: Path,
    *,
    format: RecordFormat | Literal["auto"] = "auto",
    reading: Reading | None = None,
    tokenizer: Path | None = None,
    max_length: int = DEFAULT_MAX_LENGTH,
) -> Report:
    """Read every record of `path`. With `tokenizer`, a model folder, lengths are in tokens.

    Raises UserError where the file is no data file or the folder has no usable tokenizer.
    """
    try:
        records = RecordFile(path, format, reading)
        with contextlib.ExitStack() as stack:
            counting = None
            if tokenizer is not None:
                counting = stack.enter_context(_TokenCount(path, records, tokenizer, max_length))
            tally = _Tally(records)
            measured = counting.result() if counting else None
    except DataFileError as error:
        raise UserError(Problem(where="", what=str(path), why=error.why, way_out=error.way_out)) from None
    return Report(
        path=str(path),
        size_bytes=records.size_bytes,
        said=records.said,
        format=records.format,
        records=tally.records,
        bad_records=tally.bad_records,
        bad=tally.bad,
        duplicates=(duplicates := tally.exact.duplicates()),
        near_duplicates=tally.near.duplicates() - duplicates,
        lost=dict(records.lost),
        unit="tokens" if measured else "characters",
        histogram=_token_buckets(measured) if measured else tally.buckets(),
        longest_characters=tally.longest,
        characters=tally.characters,
        tokens=_tokens(measured, tokenizer, max_length) if measured and tokenizer else None,
    )


class _Tally:
    """One pass over the records."""

    def __init__(self, records: RecordFile) -> None:
        self.records = self.bad_records = self.characters = self.longest = 0
        self.bad: list[BadRecord] = []
        self.exact, self.near = FingerprintBag(), FingerprintBag()
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
            self.exact.add(fingerprint(item.record))
            self.near.add(near_fingerprint(item.record))

    def buckets(self) -> list[Bucket]:
        """Each twice as wide as the one before."""
        if not self._sizes:
            return []
        return [Bucket(2**bits, self._sizes[bits]) for bits in range(min(self._sizes), max(self._sizes) + 1)]


class _TokenCount:
    """`python -m train.data.check`, beside this process; ended with the `with` block."""

    def __init__(self, path: Path, records: RecordFile, tokenizer: Path, max_length: int) -> None:
        command = [sys.executable, "-P", "-m", "train.data.check", str(path), f"--format={records.format}"]
        command += [f"--reading={canonical_json(records.reading).decode()}"]
        command += [f"--tokenizer={tokenizer}", f"--max-length={max_length}"]
        self._tokenizer = tokenizer
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _TokenCount:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        output, messages = self._process.communicate()
        if self._process.returncode == EXIT_USER_ERROR:
            why = messages.strip().splitlines()[-1] if messages.strip() else "no usable tokenizer"
            raise UserError(Problem(where="", what=f"--tokenizer {self._tokenizer}", why=why))
        if self._process.returncode != 0:
            raise RunFailed("data check", "counting tokens failed", "see the output below", messages.strip())
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result


def _token_buckets(measured: dict[str, Any]) -> list[Bucket]:
    return [Bucket(row["up_to"], row["documents"]) for row in measured["tokens"]["length_histogram"]]


def _tokens(measured: dict[str, Any], tokenizer: Path, max_length: int) -> Tokens:
    counts = measured["tokens"]
    dropped = counts["dropped"]
    unsupervised = dropped.get("no supervised token", 0)
    return Tokens(
        tokenizer=str(tokenizer),
        max_length=max_length,
        truncated=counts["truncated"],
        truncated_numbers=measured["truncated"],
        unsupervised=unsupervised,
        unsupervised_numbers=measured["unsupervised"],
        refused=sum(dropped.values()) - unsupervised,
        refused_reasons=[f"record {entry['number']}: {entry['reason']}" for entry in measured["refused"]],
        total=counts["tokens"],
        supervised=counts["supervised_tokens"],
        longest=counts["longest_document"],
    )


def render(report: Report) -> str:
    """The report as text of at most about 100 columns."""
    return "\n".join([*_facts(report), *_bad_lines(report), *_histogram(report), *_token_lines(report)])


def _facts(report: Report) -> Iterator[str]:
    yield f"{report.path}: {report.said}, {report.size_bytes:,} bytes"
    noun = "record" if report.records == 1 else "records"
    if report.format == "custom":
        yield "  its items are made when the stage prepare runs it"
        return
    counts = f"  {report.records:,} good {noun}, {report.bad_records:,} bad"
    if report.duplicates:
        counts += f", {report.duplicates:,} of the good repeat an earlier one"
    yield counts
    if report.near_duplicates:
        yield f"  {report.near_duplicates:,} more do but for case, spaces and punctuation"
    if report.lost:
        lost = ", ".join(f"{name} ({count:,})" for name, count in sorted(report.lost.items()))
        yield f"  not passed on (of so many records): {lost}"


def _bad_lines(report: Report) -> Iterator[str]:
    if not report.bad:
        return
    yield ""
    yield "Bad records"
    for bad in report.bad:
        yield f"  {bad.place}: {bad.reason}"
    if report.bad_records > len(report.bad):
        yield f"  and {report.bad_records - len(report.bad):,} more"


def _histogram(report: Report) -> Iterator[str]:
    buckets = report.histogram
    filled = [index for index, bucket in enumerate(buckets) if bucket.records]
    if not filled:
        return
    yield ""
    if report.tokens:
        yield f"Tokens per record (maximum length {report.tokens.max_length:,})"
    else:
        yield "Characters per record (for tokens, name a model folder: --tokenizer FOLDER)"
    shown = buckets[filled[0] : filled[-1] + 1]
    most = max(bucket.records for bucket in shown)
    for bucket in shown:
        label = f"up to {bucket.up_to:,}" if bucket.up_to is not None else "over the maximum"
        bar = "█" * max(round(_BAR_WIDTH * bucket.records / most), 1 if bucket.records else 0)
        yield f"  {label:>16}  {bar:<{_BAR_WIDTH}} {bucket.records:,}"


def _token_lines(report: Report) -> Iterator[str]:
    tokens = report.tokens
    if not report.records:
        return
    yield ""
    if tokens is None:
        yield f"  longest record {report.longest_characters:,} characters, {report.characters:,} in all"
        return
    learnt = f"{tokens.supervised:,} of them supervised"
    yield f"  longest record {tokens.longest:,} tokens, {tokens.total:,} in all, {learnt}"
    for count, what, numbers in (
        (tokens.truncated, f"would be truncated to {tokens.max_length:,} tokens", tokens.truncated_numbers),
        (tokens.unsupervised, "would end with no supervised token", tokens.unsupervised_numbers),
    ):
        listed = ", ".join(map(str, numbers)) + (", …" if count > len(numbers) else "")
        yield f"  {count:,} {what}" + (f" (records {listed})" if numbers else "")
    if tokens.refused:
        yield f"  {tokens.refused:,} are refused by the chat template"
        yield from (f"    {reason}" for reason in tokens.refused_reasons)
