"""Compressed data files as streams of what they hold: gzip by the standard library, zstd by pyarrow."""

from __future__ import annotations

import enum
import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

_BUFFER_BYTES = 1024 * 1024


class Compression(enum.StrEnum):
    GZIP = "gzip"
    ZSTD = "zstd"


#: First bytes of a compressed file (RFC 1952, RFC 8878).
MAGIC = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
#: Suffixes that a data file's own suffix stands before.
SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")


class DamagedError(Exception):
    """The compressed stream can't be unpacked, or ends too early."""


def compression_of(head: bytes) -> Compression | None:
    """What a file that begins with `head` is compressed with."""
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def decompressed(stream: BinaryIO, compression: Compression) -> BinaryIO:
    """What `stream` holds, of any number of members or frames; closing it closes `stream`. Reading raises
    DamagedError."""
    if compression is Compression.GZIP:
        inner: Any = gzip.GzipFile(fileobj=stream)
    else:
        import pyarrow

        inner = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    return io.BufferedReader(_Unpacking(inner, stream, compression), _BUFFER_BYTES)


class _Unpacking(io.RawIOBase):
    def __init__(self, inner: Any, stream: BinaryIO, compression: Compression) -> None:
        self._inner, self._stream, self._compression = inner, stream, compression

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = cast(bytes, self._inner.read(len(buffer)))
        except (EOFError, OSError, zlib.error) as error:  # pyarrow's errors are OSErrors
            if isinstance(error, OSError) and error.errno is not None:
                raise
            why = "it ends too early" if _is_cut(error) else str(error).splitlines()[0][:100]
            raise DamagedError(f"damaged {self._compression} data: {why}") from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _is_cut(error: Exception) -> bool:
    return isinstance(error, EOFError) or "truncated" in str(error).lower()
