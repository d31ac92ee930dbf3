"""Lines in another order, always the same one, in bounded memory."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from typing import IO

_BUCKETS = 64  # each is shuffled by itself, in memory
_HELD_BYTES = 32_000_000  # beyond that lines go to temporary files


class Shuffler:
    """Lines go to buckets at random, and each bucket is shuffled: every order is equally likely. `write` gets
    them once `finish` is called."""

    def __init__(self, write: Callable[[bytes], None], seed: int) -> None:
        self._write, self._random = write, random.Random(seed)
        self._held: list[list[bytes]] = [[] for _ in range(_BUCKETS)]
        self._held_bytes = 0
        self._spilled: list[IO[bytes]] = []

    def write(self, line: bytes) -> None:
        self._held[self._random.randrange(_BUCKETS)].append(line)
        self._held_bytes += len(line)
        if self._held_bytes >= _HELD_BYTES:
            self._spill()

    def finish(self) -> None:
        for index, held in enumerate(self._held):
            lines = held
            if self._spilled:
                with self._spilled[index] as file:
                    file.seek(0)
                    lines = [line.removesuffix(b"\n") for line in file] + held
            self._random.shuffle(lines)
            for line in lines:
                self._write(line)
            self._held[index] = []

    def _spill(self) -> None:
        if not self._spilled:
            self._spilled = [tempfile.TemporaryFile() for _ in range(_BUCKETS)]  # noqa: SIM115
        for file, lines in zip(self._spilled, self._held, strict=True):
            file.writelines(line + b"\n" for line in lines)
            lines.clear()
        self._held_bytes = 0
