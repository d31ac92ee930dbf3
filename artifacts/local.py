"""The store in a local folder: writes go to a temporary file beside the object, are fsynced, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from artifacts.store import ObjectInfo, ObjectMissingError, Sent, UnfinishedWrite, key_parts

_TEMPORARY = ".tmp-"  # names starting so are never listed: unfinished writes of a killed process
_MAKE_FOLDER_TRIES = 100


class LocalStore:
    """`artifacts.store.Store` over a folder, which is made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    @property
    def concurrency(self) -> int:
        return min(4, os.cpu_count() or 1)  # hashing takes the cores, a disk gains little from more

    def read_bytes(self, key: str) -> bytes:
        with self.open_read(key) as stream:
            return stream.read()

    def open_read(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissingError(key) from error

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        with self._replacing(key) as temporary, temporary.open("wb") as stream:
            yield stream
            _fsync(stream)

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        if not if_absent:
            with self.open_write(key) as stream:
                stream.write(data)
            return True
        path = self._path(key)
        temporary = _make_temporary(path)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                _fsync(stream)
            os.link(temporary, path)  # fails where the name is taken, which rename would not
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the object is deleted again, and its folder with it
            _fsync_folder(path.parent)
        return True

    def put_file(
        self, key: str, source: Path, *, move: bool = False, sha256: str = "", sent: Sent | None = None
    ) -> None:
        with self._replacing(key) as temporary:
            if move and source.stat().st_dev == temporary.parent.stat().st_dev:
                source.rename(temporary)
            else:
                shutil.copyfile(source, temporary)
            with temporary.open("rb+") as stream:
                _fsync(stream)
                size_bytes = os.fstat(stream.fileno()).st_size
        if sent is not None:
            sent(size_bytes)

    def holds(self, key: str, sha256: str) -> bool:
        return False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._list(self.local_path(prefix), f"{prefix}/" if prefix else "")

    def _list(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not entry.name.startswith(_TEMPORARY)]
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder's keys go on with a slash, which is what puts `a-b` before `a/b`.
        names = {f"{entry.name}/" if entry.is_dir() else entry.name: entry for entry in entries}
        for name, entry in sorted(names.items()):
            if name.endswith("/"):
                yield from self._list(folder / entry.name, prefix + name)
            else:
                with contextlib.suppress(FileNotFoundError):  # deleted while listing
                    yield ObjectInfo(prefix + name, entry.stat().st_size)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except (IsADirectoryError, NotADirectoryError):
            return  # a folder is no object
        for parent in path.parents:  # folders are only a way to write keys: empty ones go
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:
                break

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def unfinished(self, older_than_s: float) -> Iterator[UnfinishedWrite]:
        before = time.time() - older_than_s
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # just finished
                    status = path.stat()
                    if name.startswith(_TEMPORARY) and status.st_mtime < before:
                        where = path.relative_to(self.root).as_posix()
                        yield UnfinishedWrite(name=where, size_bytes=status.st_size, token="")

    def discard(self, write: UnfinishedWrite) -> None:
        (self.root / write.name).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path:
        return self._path(key) if key else self.root

    def _path(self, key: str) -> Path:
        parts = key_parts(key)
        if any(part.startswith(_TEMPORARY) for part in parts):
            raise ValueError(f"not a store key: {key!r}")
        return self.root.joinpath(*parts)

    @contextlib.contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        """A temporary path that takes the key's place when the block ends well."""
        path = self._path(key)
        temporary = _make_temporary(path)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the object is deleted again, and its folder with it
            _fsync_folder(path.parent)


def _make_temporary(path: Path) -> Path:
    """An empty file beside `path`, and the folders above it. Another process may be removing these, empty as
    they are, between our making them and the file, or between `mkdir` finding one and looking at it."""
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    for _ in range(_MAKE_FOLDER_TRIES - 1):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
            return temporary
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch(exist_ok=False)
    return temporary


def _fsync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
