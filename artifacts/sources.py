"""A data file's bytes: counted and hashed as they pass, unpacked, cut at a limit."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from artifacts.compression import Compression, decompressed
from artifacts.filetypes import DataFileError

BUFFER_BYTES = 1024 * 1024


class Digest(Protocol):
    """A hash that is fed, as hashlib's are."""

    def update(self, data: memoryview, /) -> object: ...


class Source:
    """One file, read once. `bytes_read` counts its own bytes; `cut` tells that there is more behind
    `limit_bytes`, which count what it holds, unpacked."""

    def __init__(
        self,
        path: Path,
        compression: Compression | None,
        limit_bytes: int | None = None,
        digest: Digest | None = None,
    ) -> None:
        self.path, self.limit_bytes = path, limit_bytes
        self._compression, self._digest = compression, digest
        self._raw: _Counted | None = None
        self._limited: _Limited | None = None

    @property
    def bytes_read(self) -> int:
        return self._raw.bytes_read if self._raw else 0

    @property
    def cut(self) -> bool:
        return self._limited is not None and self._limited.cut

    @contextlib.contextmanager
    def open(self, *, limited: bool = True) -> Iterator[BinaryIO]:
        """What the file holds, from front to back. Reading raises DataFileError and DamagedError."""
        with contextlib.ExitStack() as stack:
            self._raw = _Counted(self.path, self._digest)
            stream = stack.enter_context(_buffered(self._raw))
            if self._compression:
                stream = stack.enter_context(decompressed(stream, self._compression))
            if limited and self.limit_bytes is not None:
                self._limited = _Limited(stream, self.limit_bytes)
                stream = stack.enter_context(_buffered(self._limited))
            yield stream

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """A file to read at places of one's choice: this one, or what it holds unpacked, for a while."""
        if self._compression is None:
            yield self.path
            return
        with (
            tempfile.NamedTemporaryFile(prefix="slipway-data-") as unpacked,
            self.open(limited=False) as stream,
        ):
            shutil.copyfileobj(stream, unpacked, BUFFER_BYTES)
            unpacked.flush()
            yield Path(unpacked.name)


def drain(stream: BinaryIO) -> None:
    """Read on to the end: what stands behind the last record counts for the digest."""
    while stream.read(BUFFER_BYTES):
        pass


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(raw, BUFFER_BYTES))


def unreadable(error: OSError) -> DataFileError:
    """What the system said, as a reason against the file."""
    return DataFileError(f"can't be read: {error.strerror or error}")


class _Counted(io.RawIOBase):
    """The file's bytes, counted and hashed as they pass."""

    def __init__(self, path: Path, digest: Digest | None) -> None:
        self.bytes_read, self._digest = 0, digest
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(error) from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        try:
            count = self._file.readinto(view) or 0
        except OSError as error:
            raise unreadable(error) from None
        self.bytes_read += count
        if self._digest is not None:
            self._digest.update(view[:count])
        return count

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


class _Limited(io.RawIOBase):
    """The first bytes of a stream."""

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self.cut = False
        self._stream, self._left = stream, limit_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        if not data and len(buffer) and self._left == 0:
            self.cut = self.cut or bool(self._stream.read(1))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)
