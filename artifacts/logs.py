"""What stage processes print, kept in the store: one stream of text per process, so that logs outlive the
machine that wrote them.

A stream is a folder `runs/<run-id>/logs/<stage>/<start, Unix ms>-<source>-<6 hex>/` of immutable objects
`<first byte>-<byte after the last>.log`. With offsets for names a writer can merge small objects into larger
ones, so that there are some dozens of them at most, and readers go on from the byte they have reached.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from artifacts.store import ObjectMissingError, Store

FIRST_FLUSH_S = 1.0  # of a young stream, which somebody may be waiting for
LAST_FLUSH_S = 10.0
FLUSH_SHARE = 0.01  # of the stream's age, between the two
MERGE_OBJECTS = 16  # of one size into one of the next
LARGEST_BYTES = 64 * 1024 * 1024  # of a merged object
BUFFER_BYTES = 8 * 1024 * 1024  # kept while the store is out of reach
LONGEST_LINE_BYTES = 64 * 1024  # longer ones are cut: whoever prints without newlines is not held back
_FULL = 99  # level of those that are merged no more
CLOSE_S = 20.0  # how long a process that ends waits for the store


def logs_prefix(run_id: str, stage: str) -> str:
    return f"runs/{run_id}/logs/{stage}"


def flush_interval_s(age_s: float) -> float:
    return min(max(FIRST_FLUSH_S, FLUSH_SHARE * age_s), LAST_FLUSH_S)


class LogWriter(io.TextIOBase):
    """A text stream into the store. Writing never waits: a thread carries the lines to the store, and while
    that is out of reach the oldest are dropped for the newest (one line says how much).

    `source`: `main` is the stage's process, `rank-3` one of its ranks. `redact` takes secrets out of text.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        stage: str,
        source: str = "main",
        *,
        redact: Callable[[str], str] = lambda text: text,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        name = f"{int(time.time() * 1000):013d}-{source}-{uuid.uuid4().hex[:6]}"
        self._objects = _Objects(store, f"{logs_prefix(run_id, stage)}/{name}")
        self._buffer, self._redact = _Buffer(buffer_bytes), redact
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._carry, name=f"log-{source}", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._buffer.append(text.encode(errors="replace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """The same for UTF-8 as it comes out of a pipe, cut anywhere."""
        self._buffer.append(data)

    def close(self) -> None:
        """Finish the last line and wait until all is in the store, for at most `CLOSE_S`."""
        if not self._closing.is_set():
            self._buffer.finish()
            self._closing.set()
            self._thread.join(CLOSE_S)
        super().close()

    def _carry(self) -> None:
        started_s = time.monotonic()
        while not self._closing.wait(flush_interval_s(time.monotonic() - started_s)):
            self._flush()
        self._flush()
        with contextlib.suppress(Exception):  # only a matter of tidiness
            self._objects.merge_all()

    def _flush(self) -> None:
        """Store whatever is in the buffer, however long the store can't be reached."""
        while lines := self._buffer.take():
            data = self._redact(lines.decode(errors="replace")).encode()
            while True:
                try:
                    self._objects.put(data)
                    break
                except Exception:  # whatever the store's client may raise
                    time.sleep(FIRST_FLUSH_S)
        with contextlib.suppress(Exception):
            self._objects.merge()


class _Buffer:
    """Bytes on their way, the newest `limit_bytes` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes, self._lock = limit_bytes, threading.Lock()
        self._data, self._dropped_bytes = bytearray(), 0
        self._mid_line = False  # what was taken last ends within a line

    def append(self, data: bytes) -> None:
        with self._lock:
            self._data += data
            if len(self._data) > self._limit_bytes:
                # Half at once, so that the time it takes does not count; from the start of a line on.
                excess = len(self._data) - self._limit_bytes // 2
                cut = self._data.find(b"\n", excess) + 1 or excess
                del self._data[:cut]
                self._dropped_bytes += cut

    def finish(self) -> None:
        with self._lock:
            if not self._data.endswith(b"\n") and (self._data or self._mid_line):
                self._data += b"\n"

    def take(self) -> bytes:
        """All whole lines; `b""` while there is none."""
        with self._lock:
            end = self._data.rfind(b"\n") + 1
            if len(self._data) - end > LONGEST_LINE_BYTES:
                end = len(self._data)
            lines = bytes(self._data[:end])
            del self._data[:end]
            self._mid_line = not lines.endswith(b"\n") if lines else self._mid_line
            if lines and self._dropped_bytes:
                told = f"[{self._dropped_bytes} bytes are missing here: the store was out of reach]\n"
                lines, self._dropped_bytes = told.encode() + lines, 0
            return lines


@dataclass(frozen=True)
class _Part:
    start: int
    end: int
    level: int  # how often its bytes were merged

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.end:012d}.log"


class _Objects:
    """The objects of one stream. Levels fall from the first to the last, as the digits of a counter do."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._parts: list[_Part] = []

    def put(self, data: bytes) -> None:
        start = self._parts[-1].end if self._parts else 0
        part = _Part(start, start + len(data), 0)
        self._store.write_bytes(f"{self._folder}/{part.name}", data)
        self._parts.append(part)

    def merge(self) -> None:
        """Join what has come together of one level."""
        while self._parts and (level := self._parts[-1].level) != _FULL:
            first = next(i for i, part in enumerate(self._parts) if part.level == level)
            if len(self._parts) - first < MERGE_OBJECTS:
                return
            whole = self._parts[-1].end - self._parts[first].start <= LARGEST_BYTES
            self._pack(first, level + 1 if whole else _FULL)

    def merge_all(self) -> None:
        self._pack(0, _FULL)

    def _pack(self, first: int, level: int) -> None:
        """Join the parts from `first` on into as few as the limit of their size allows."""
        while first < len(self._parts):
            last = first + 1
            while (
                last < len(self._parts) and self._parts[last].end - self._parts[first].start <= LARGEST_BYTES
            ):
                last += 1
            self._join(first, last, level)
            first += 1

    def _join(self, first: int, last: int, level: int) -> None:
        """One object in place of several. A reader finds their bytes at every moment: the new one is whole
        before the old ones go."""
        old = self._parts[first:last]
        new = _Part(old[0].start, old[-1].end, level)
        if len(old) > 1:
            with self._store.open_write(f"{self._folder}/{new.name}") as out:
                for part in old:
                    with self._store.open_read(f"{self._folder}/{part.name}") as data:
                        shutil.copyfileobj(data, out)
        self._parts[first:last] = [new]
        for part in old:
            if part.name != new.name:
                self._store.delete(f"{self._folder}/{part.name}")


class LogReader:
    """`poll` returns the lines that came since the last call, one stream after another in the order of their
    starts.

    `source`: None reads all, and lines of others than `main` then begin with `[rank-1] `. `attempt`: the n-th
    start of each source, from 1 on, or -1 for the newest; None reads all.
    """

    def __init__(
        self, store: Store, run_id: str, stage: str, source: str | None = None, attempt: int | None = None
    ) -> None:
        self._store, self._prefix = store, logs_prefix(run_id, stage)
        self._source, self._attempt = source, attempt
        self._streams: dict[str, _Stream] = {}

    def poll(self) -> list[str]:
        listed: dict[str, list[tuple[int, int, str]]] = {}
        for info in self._store.list(self._prefix):
            folder, _, name = info.key.removeprefix(f"{self._prefix}/").partition("/")
            start, end = name.removesuffix(".log").split("-")
            listed.setdefault(folder, []).append((int(start), int(end), info.key))
        lines: list[str] = []
        for folder in self._chosen(sorted(listed)):
            stream = self._streams.setdefault(folder, _Stream(self._store))
            source = _source(folder)
            mark = f"[{source}] " if self._source is None and source != "main" else ""
            lines += [mark + line for line in stream.read(listed[folder])]
        return lines

    def _chosen(self, folders: list[str]) -> Iterator[str]:
        starts: dict[str, list[str]] = {}
        for folder in folders:
            starts.setdefault(_source(folder), []).append(folder)
        for folder in folders:
            source = _source(folder)
            of_source = starts[source]
            attempts = (of_source.index(folder) + 1, of_source.index(folder) - len(of_source))
            if self._source in (None, source) and (self._attempt is None or self._attempt in attempts):
                yield folder


def _source(folder: str) -> str:
    """Of `<ms>-<source>-<hex>`."""
    return folder.split("-", 1)[1].rpartition("-")[0]


class _Stream:
    """How far one stream was read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._position, self._rest = 0, b""

    def read(self, parts: list[tuple[int, int, str]]) -> list[str]:
        """New whole lines. Of a progress bar's line, its last state."""
        for start, end, key in sorted(parts, key=lambda part: (part[0], -part[1])):
            if start <= self._position < end:
                try:
                    data = self._store.read_bytes(key)
                except ObjectMissingError:  # merged since it was listed: the next poll finds the whole
                    break
                self._rest += data[self._position - start :]
                self._position = end
        *whole, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in whole]
