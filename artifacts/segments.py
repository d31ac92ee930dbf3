"""Append-only streams over a store that can't append: each writer leaves immutable segments
`<prefix>/<writer>-<seq>.jsonl`, readers merge them. A run's events and a training's metrics are such streams.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from artifacts.contract import canonical_json
from artifacts.store import Store

#: A remote store takes milliseconds for each small object: several are read at a time.
_PARALLEL_FROM, _READERS = 4, 8
#: There a stream that has gone on for long is written less often, and so has some thousands of segments at
#: most: after this share of its age, but every `_LAST_FLUSH_S` at least.
_FLUSH_SHARE, _LAST_FLUSH_S = 0.01, 10.0


class SegmentWriter:
    """Buffers rows and writes them as one segment every `flush_every_s` (and on `flush`); less often in a
    remote store, once it has done so for some minutes.

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
        self._began, self._remote = clock(), store.local_path("") is None

    def append(self, row: dict[str, Any]) -> None:
        """Raises ValueError or TypeError for a row that is not JSON (NaN is none); the others are kept."""
        line = canonical_json(row) + b"\n"
        with self._lock:
            self._lines.append(line)
            due = self._clock() - self._flushed_at >= self._interval_s()
        if due:
            self.flush()

    def _interval_s(self) -> float:
        if not self._remote:
            return self._flush_every_s
        age_s = self._clock() - self._began
        return max(self._flush_every_s, min(_FLUSH_SHARE * age_s, _LAST_FLUSH_S))

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
        keys = [info.key for info in self._store.list(self._prefix) if info.key not in self._seen]
        rows = [json.loads(line) for body in self._read(keys) for line in body.splitlines()]
        self._seen.update(keys)
        return rows

    def _read(self, keys: list[str]) -> list[bytes]:
        if len(keys) < _PARALLEL_FROM or self._store.local_path("") is not None:
            return [self._store.read_bytes(key) for key in keys]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._store.read_bytes, keys))


def read_all(store: Store, prefix: str) -> Iterator[dict[str, Any]]:
    yield from SegmentReader(store, prefix).poll()
