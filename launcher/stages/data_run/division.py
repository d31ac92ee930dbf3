"""Which records pass, how often, and on which side: choices that the same data meet again in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from artifacts.records import GoodRecord
from launcher.stages.data_run.fingerprints import normalized_prompt

_GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, are the most evenly spread


def copies(position: int, weight: float) -> int:
    """How often the record at `position` (from 0) of a data set of this weight passes: of n records
    n × weight pass but for a few (the difference grows with the logarithm of n), evenly spread, the first
    among them."""
    whole = int(weight)
    return whole + (position * _GOLDEN_RATIO % 1.0 < weight - whole)


class Division:
    """Sets a share of the training records aside for evaluation, by their questions: those that ask the same,
    but for case and punctuation, are on one side.

    At least one is: until there is one, those of the question that comes nearest are held back.
    """

    def __init__(self, fraction: float, seed: int) -> None:
        self._limit = int(fraction * 2**64)
        self._salt = seed.to_bytes(8, "little")
        self._nearest, self._held = 2**64, list[tuple[GoodRecord, int]]()
        self._has_eval = False

    def divide(self, record: GoodRecord, copies: int) -> Iterator[tuple[str, GoodRecord, int]]:
        """(split, record, how often it passes) of what is settled now. Evaluation sees a record once."""
        place = self._place(record)
        if place < self._limit:
            self._has_eval = True
            yield "eval", record, 1
            yield from self._release("train")
        elif self._has_eval or place > self._nearest:
            yield "train", record, copies
        else:
            if place < self._nearest:
                yield from self._release("train")
                self._nearest = place
            self._held.append((record, copies))

    def finish(self) -> Iterator[tuple[str, GoodRecord, int]]:
        """What was held back to the end is set aside."""
        yield from self._release("eval")

    def _release(self, split: str) -> Iterator[tuple[str, GoodRecord, int]]:
        held, self._held = self._held, []
        for record, copies in held:
            yield split, record, 1 if split == "eval" else copies

    def _place(self, record: GoodRecord) -> int:
        digest = hashlib.blake2b(normalized_prompt(record.record), digest_size=8, salt=self._salt).digest()
        return int.from_bytes(digest, "little")
