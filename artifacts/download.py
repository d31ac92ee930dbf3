"""An artifact's files from a store to a folder, several at a time, each byte hashed on its way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from artifacts.manifest import FileEntry
from artifacts.store import ObjectMissingError, Store

#: Files at a time. Each holds one block in memory.
PARALLEL_FILES = 8
_BLOCK_BYTES = 4 * 1024 * 1024
_TELL_EVERY_S = 0.5
_PART = ".part-"  # what a file is called until it is whole and checked

Progress = Callable[[int, int], None]  # (bytes done, bytes in all); called from several threads


class InputError(Exception):
    """An input can't be had: what happened in one line, and what to do."""

    def __init__(self, cause: str, advice: str) -> None:
        self.cause, self.advice = cause, advice
        super().__init__(cause)


class DamagedError(InputError):
    """A file that is not what the manifest says, read twice."""


def download(
    store: Store, before: str, files: Sequence[FileEntry], folder: Path, progress: Progress | None = None
) -> None:
    """Put the object `<before><path>` of every file into `folder`; nothing waits for the disk.

    A file of its final name and size that is there already was checked by an earlier call and is kept. A file
    that does not match, or whose connection broke, is read once more. Raises DamagedError, OSError (the disk)
    and what the store raises.
    """
    count = _Count(sum(entry.size_bytes for entry in files), progress)
    fetch = _Fetch(store, before, folder, count)
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        # The largest first: none of them is left to run alone at the end.
        fetches = [pool.submit(fetch, entry) for entry in sorted(files, key=lambda entry: -entry.size_bytes)]
        try:
            for done in fetches:
                done.result()
        except BaseException:
            fetch.abandoned.set()
            pool.shutdown(cancel_futures=True)
            raise
    count.tell()


class _Count:
    """Bytes of all files so far, told every half second."""

    def __init__(self, total_bytes: int, progress: Progress | None) -> None:
        self._total_bytes, self._progress = total_bytes, progress
        self._done_bytes, self._told_at, self._lock = 0, time.monotonic(), threading.Lock()

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._done_bytes += size_bytes
            due = time.monotonic() - self._told_at >= _TELL_EVERY_S
            if due:
                self._told_at = time.monotonic()
        if due:
            self.tell()

    def tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done_bytes, self._total_bytes)


class _Fetch:
    """Fetches one file at a time, in each thread."""

    def __init__(self, store: Store, before: str, folder: Path, count: _Count) -> None:
        self._store, self._before, self._folder, self._count = store, before, folder, count
        self.abandoned = threading.Event()  # another file failed for good

    def __call__(self, entry: FileEntry) -> None:
        path = self._folder / entry.path
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError(f"not a path below an artifact: {entry.path!r}")
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == entry.size_bytes:
                self._count.add(entry.size_bytes)
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{_PART}{path.name}")
        problem = self._read(entry, part, again=True) and self._read(entry, part, again=False)
        if problem:
            part.unlink()
            raise DamagedError(
                f"{self._store.uri}/{self._before}{entry.path} is damaged: {problem}",
                f"remove {self._before.rstrip('/') or self._store.uri} from the store, then submit again: "
                "its stage makes it anew",
            )
        part.chmod(0o444)  # shared by every process of the node
        part.replace(path)

    def _read(self, entry: FileEntry, part: Path, *, again: bool) -> str:
        """Copy the object; what is wrong with it, or nothing. With `again` a broken connection is a problem
        of this copy alone."""
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with self._store.open_read(f"{self._before}{entry.path}") as stream, part.open("wb") as file:
                while not self.abandoned.is_set() and (block := stream.read(_BLOCK_BYTES)):
                    file.write(block)
                    digest.update(block)
                    size_bytes += len(block)
                    self._count.add(len(block))
        except ObjectMissingError:
            part.unlink(missing_ok=True)
            raise
        except Exception as error:  # each store's client has its own
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if full or not again:
                raise
            self._count.add(-size_bytes)
            return str(error)
        if (size_bytes, digest.hexdigest()) == (entry.size_bytes, entry.sha256):
            return ""
        self._count.add(-size_bytes)
        if size_bytes != entry.size_bytes:
            return f"{size_bytes:,} bytes, {entry.size_bytes:,} expected"
        return "its SHA-256 differs from the manifest's"
