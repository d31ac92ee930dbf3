"""Where a split's records go: into its shards, counted on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from artifacts.formats import Record
from artifacts.records import BadRecord, FileReport, GoodRecord, SplitReport
from launcher.stages.data_run.fingerprints import FingerprintBag, Repeats, prompt_fingerprint


class Sink:
    """One split of the artifact. `write` takes its lines. Of training records repeats are counted, and with
    `prompts` what is asked is remembered, to be found in other splits."""

    def __init__(
        self, write: Callable[[bytes], None], *, repeats: bool = False, prompts: bool = True
    ) -> None:
        self.records = 0  # lines
        self.prompts = FingerprintBag()
        self.repeats = Repeats()
        self._write, self._counts_repeats, self._keeps_prompts = write, repeats, prompts
        self._longest = 0
        self._characters: defaultdict[str, int] = defaultdict(int)

    def add(self, good: GoodRecord, copies: int) -> None:
        """Write the record so many times. Copies are no repeats."""
        if copies == 0:
            return
        _, _, record, line = good
        for _ in range(copies):
            self._write(line)
        self.records += copies
        total = self._count_characters(record, copies)
        if total > self._longest:
            self._longest = total
        if self._keeps_prompts:
            self.prompts.add(prompt_fingerprint(record))
        if self._counts_repeats:
            self.repeats.add(record)

    def _count_characters(self, record: Record, copies: int) -> int:
        """The record's characters, once."""
        characters, total = self._characters, 0
        if "text" in record:
            characters["text"] += len(record["text"]) * copies
            return len(record["text"])
        for message in record["messages"]:
            length = len(message["content"])
            characters[message["role"]] += length * copies
            total += length
        return total

    def report(
        self, files: list[FileReport], bad_records: int, bad: list[BadRecord], shards: list[str]
    ) -> SplitReport:
        return SplitReport(
            files=files,
            records=self.records,
            bad_records=bad_records,
            bad=bad,
            characters=dict(self._characters),
            longest_record_characters=self._longest,
            shards=shards,
        )
