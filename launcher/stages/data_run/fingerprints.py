"""Counting repeats among any number of records in bounded memory, by 64-bit hashes."""

from __future__ import annotations

import tempfile
from array import array
from typing import IO

from artifacts.formats import Record, encode_record

_PARTITIONS = 64
_HELD_HASHES = 2_000_000  # 16 MB; beyond that they go to temporary files
_NEW_HASHES = 4096  # that wait to be sorted into partitions


# What near-duplicates may differ in: case, spaces, punctuation, as far as ASCII goes.
_LOWER = bytes(range(256)).lower()
_UNHEARD = bytes(code for code in range(128) if not chr(code).isalnum())
_LOOKED_AT = 256  # characters
_COMPARED = 160  # bytes of them that are left: fewer, so that other spacing moves no end


def fingerprint(record: Record) -> int:
    """A hash of all that the record says, the same only within one process."""
    messages = record.get("messages")
    if messages is None:
        return hash(record["text"])
    texts: list[str] = []
    for message in messages:
        if len(message) > 2 or len(record) > 1:
            return hash(encode_record(record))
        texts += message["role"], message["content"]
    return hash(tuple(texts))


def prompt_fingerprint(record: Record) -> int:
    """The same of what the record asks: all messages but the last; of a text, all of it."""
    messages = record.get("messages")
    return fingerprint(record if messages is None else {**record, "messages": messages[:-1]})


def near_fingerprint(record: Record) -> int:
    """The same of how the last question ends and how its answer begins, but for case, spaces and punctuation:
    a bounded share of the record."""
    messages = record.get("messages")
    question, answer = (
        (record["text"], record["text"])
        if messages is None
        else (messages[-2]["content"], messages[-1]["content"])
    )
    ending, beginning = _normalized(question[-_LOOKED_AT:]), _normalized(answer[:_LOOKED_AT])
    return hash((ending[-_COMPARED:], beginning[:_COMPARED]))


def normalized_prompt(record: Record) -> bytes:
    """What the record asks, but for case, spaces and punctuation."""
    messages = record.get("messages")
    if messages is None:
        return _normalized(record["text"])
    return _normalized("\n".join([message["content"] for message in messages[:-1]]))


def _normalized(text: str) -> bytes:
    return text.encode().translate(_LOWER, _UNHEARD)


class FingerprintBag:
    """A multiset of hashes, partitioned by value, so that one partition at a time fits in memory."""

    def __init__(self, held_hashes: int = _HELD_HASHES) -> None:
        self._held_hashes = held_hashes
        self._new = array("q")
        self._held = [array("q") for _ in range(_PARTITIONS)]
        self._spilled: list[IO[bytes]] = []
        self._count = 0

    def add(self, fingerprint: int) -> None:
        self._new.append(fingerprint)
        if len(self._new) == _NEW_HASHES:
            self._sort_in()

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
        self._sort_in()
        partition = array("q")
        if self._spilled:
            self._spilled[index].seek(0)
            partition.frombytes(self._spilled[index].read())
        partition.extend(self._held[index])
        return partition

    def _sort_in(self) -> None:
        held = self._held
        for fingerprint in self._new:
            held[fingerprint % _PARTITIONS].append(fingerprint)
        self._count += len(self._new)
        del self._new[:]
        if self._count >= self._held_hashes:
            self._spill()

    def _spill(self) -> None:
        if not self._spilled:
            self._spilled = [tempfile.TemporaryFile() for _ in range(_PARTITIONS)]  # noqa: SIM115
        for index, file in enumerate(self._spilled):
            file.seek(0, 2)
            file.write(self._held[index].tobytes())
            self._held[index] = array("q")
        self._count = 0


class Repeats:
    """Counts records that repeat an earlier one."""

    def __init__(self) -> None:
        self._exact, self._near = FingerprintBag(), FingerprintBag()

    def add(self, record: Record) -> None:
        self._exact.add(fingerprint(record))
        self._near.add(near_fingerprint(record))

    def count(self) -> tuple[int, int]:
        """How many are the same, and how many more nearly so."""
        exact = self._exact.duplicates()
        return exact, self._near.duplicates() - exact
