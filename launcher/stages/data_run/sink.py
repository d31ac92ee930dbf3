"""Where a split's records go: into its shards, counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from artifacts.records import BadRecord, FileReport, GoodRecord, SplitReport
from launcher.stages.data_run.fingerprints import FingerprintBag, fingerprints


class Sink:
    """One split of the artifact. `write` takes its lines."""

    def __init__(self, write: Callable[[bytes], None], *, finds_repeats: bool) -> None:
        self.records = 0  # lines
        self.prompts = FingerprintBag()
        self.conversations, self.near = FingerprintBag(), FingerprintBag()
        self._write, self._finds_repeats = write, finds_repeats
        self._longest = 0
        self._characters: Counter[str] = Counter()

    def add(self, record: GoodRecord, copies: int) -> None:
        """Write the record so many times. Copies are no repeats."""
        for _ in range(copies):
            self._write(record.line)
        if copies:
            self.count(record, copies)

    def count(self, record: GoodRecord, copies: int = 1) -> None:
        """Count it alone: of a stage that fails anyway."""
        self.records += copies
        characters, total = self._characters, 0
        for message in record.messages:
            length = len(message["content"])
            characters[message["role"]] += length * copies
            total += length
        if "text" in record.record:
            total = len(record.record["text"])
            characters["text"] += total * copies
        if total > self._longest:
            self._longest = total
        found = fingerprints(record.record)
        self.prompts.add(found.prompt)
        if self._finds_repeats:
            self.conversations.add(found.record)
            self.near.add(found.near)

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
