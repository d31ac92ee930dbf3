"""Counting repeats among any number of records in bounded memory, by 64-bit hashes."""

from __future__ import annotations

import tempfile
from array import array
from typing import IO, NamedTuple

from artifacts.formats import Record, encode_record

_PARTITIONS = 64
_HELD_HASHES = 2_000_000  # 16 MB; beyond that they go to temporary files


# What near-duplicates may differ in: case, spaces, punctuation, as far as ASCII goes.
_LOWER = bytes(range(256)).lower()
_UNHEARD = bytes(code for code in range(128) if not chr(code).isalnum())


class Fingerprints(NamedTuple):
    """Hashes of a record, the same only within one process: of all it says, of its prompt (all messages but
    the last), and of what it says but for case, spaces and punctuation."""

    record: int
    prompt: int
    near: int


def fingerprints(record: Record) -> Fingerprints:
    messages = record.get("messages")
    if messages is None:
        text = record["text"]
        return Fingerprints(hash(text), hash(text), hash(_normalized(text)))
    contents = [message["content"] for message in messages]
    near = hash(_normalized("\n".join(contents)))
    if len(record) > 1 or any(len(message) > 2 for message in messages):
        prompt = encode_record({**record, "messages": messages[:-1]})
        return Fingerprints(hash(encode_record(record)), hash(prompt), near)
    texts = [text for message in messages for text in (message["role"], message["content"])]
    return Fingerprints(hash(tuple(texts)), hash(tuple(texts[:-2])), near)


def normalized_prompt(record: Record) -> bytes:
    """What the record asks, but for case, spaces and punctuation; of a text, all of it."""
    messages = record.get("messages")
    if messages is None:
        return _normalized(record["text"])
    return _normalized("\n".join(message["content"] for message in messages[:-1]))


def _normalized(text: str) -> bytes:
    return text.encode().translate(_LOWER, _UNHEARD)


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
