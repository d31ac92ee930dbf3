"""Append-only streams over a store that can't append: each writer leaves immutable segments
`<prefix>/<writer>-<seq>.jsonl`, readers merge them. A run's events and a training's metrics are such streams.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from artifacts.contract import canonical_json
from artifacts.store import Store


class SegmentWriter:
    """Buffers rows and writes them as one segment every `flush_every_s` (and on `flush`).

    `writer` must be unique among the prefix's writers: a process never continues another's sequence.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        writer: str,
        *,
        flush_every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._prefix, self._writer = store, prefix, writer
        self._flush_every_s, self._clock = flush_every_s, clock
        self._lines: list[bytes] = []
        self._sequence, self._flushed_at, self._lock = 0, clock(), threading.Lock()

    def append(self, row: dict[str, Any]) -> None:
        """Raises ValueError or TypeError for a row that is not JSON (NaN is none); the others are kept."""
        line = canonical_json(row) + b"\n"
        with self._lock:
            self._lines.append(line)
            due = self._clock() - self._flushed_at >= self._flush_every_s
        if due:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            if self._lines:
                body = b"".join(self._lines)
                self._store.write_bytes(f"{self._prefix}/{self._writer}-{self._sequence:06d}.jsonl", body)
                self._sequence += 1
                self._lines = []
            self._flushed_at = self._clock()


class SegmentReader:
    """Reads each segment once: `poll` returns the rows that came since the last call, segment by segment."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix, self._seen = store, prefix, set[str]()

    def poll(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for info in list(self._store.list(self._prefix)):
            if info.key not in self._seen:
                self._seen.add(info.key)
                rows += [json.loads(line) for line in self._store.read_bytes(info.key).splitlines()]
        return rows


def read_all(store: Store, prefix: str) -> Iterator[dict[str, Any]]:
    yield from SegmentReader(store, prefix).poll()
