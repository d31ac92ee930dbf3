"""Counting repeats among any number of records in bounded memory, by 64-bit hashes."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from typing import IO

from artifacts.conversations import Message

_PARTITIONS = 64
_HELD_HASHES = 2_000_000  # 16 MB; beyond that they go to temporary files


def fingerprints(messages: Sequence[Message]) -> tuple[int, int]:
    """(of the conversation, of its prompt: all messages but the last), the same only within one process."""
    texts = [text for message in messages for text in (message["role"], message["content"])]
    return hash(tuple(texts)), hash(tuple(texts[:-2]))


class FingerprintBag:
    """A multiset of hashes, partitioned by value, so that one partition at a time fits in memory."""

    def __init__(self, held_hashes: int = _HELD_HASHES) -> None:
        self._held_hashes, self._count = held_hashes, 0
        self._held = [array("q") for _ in range(_PARTITIONS)]
        self._spilled: list[IO[bytes]] = []

    def add(self, fingerprint: int) -> None:
        self._held[fingerprint % _PARTITIONS].append(fingerprint)
        self._count += 1
        if self._count >= self._held_hashes:
            self._spill()

    def duplicates(self) -> int:
        """How many hashes repeat an earlier one."""
        repeated = 0
        for index in range(_PARTITIONS):
            partition = self._partition(index)
            repeated += len(partition) - len(set(partition))
        return repeated

    def count_in(self, other: FingerprintBag) -> int:
        """How many hashes of this bag are also in `other`."""
        found = 0
        for index in range(_PARTITIONS):
            if mine := self._partition(index):
                others = set(other._partition(index))
                found += sum(fingerprint in others for fingerprint in mine)
        return found

    def _partition(self, index: int) -> array[int]:
        partition = array("q")
        if self._spilled:
            self._spilled[index].seek(0)
            partition.frombytes(self._spilled[index].read())
        partition.extend(self._held[index])
        return partition

    def _spill(self) -> None:
        if not self._spilled:
            self._spilled = [tempfile.TemporaryFile() for _ in range(_PARTITIONS)]  # noqa: SIM115
        for index, file in enumerate(self._spilled):
            file.seek(0, 2)
            file.write(self._held[index].tobytes())
            self._held[index] = array("q")
        self._count = 0
