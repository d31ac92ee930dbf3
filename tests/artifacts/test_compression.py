from __future__ import annotations

import gzip
import io

import pyarrow
import pytest

from artifacts.compression import Compression, DamagedError, compression_of, decompressed

DATA = b"hello world\n" * 20_000


def packed(kind: Compression, data: bytes = DATA) -> bytes:
    if kind is Compression.GZIP:
        return gzip.compress(data, mtime=0)
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("kind", Compression)
@pytest.mark.parametrize("members", [1, 2])
def test_unpacks_every_member(kind: Compression, members: int) -> None:
    raw = packed(kind) * members
    assert compression_of(raw[:8]) is kind
    with decompressed(io.BytesIO(raw), kind) as stream:
        assert stream.read() == DATA * members


@pytest.mark.parametrize("kind", Compression)
@pytest.mark.parametrize("end", [-1, -10, 12])
def test_a_cut_file_is_told(kind: Compression, end: int) -> None:
    stream = decompressed(io.BytesIO(packed(kind)[:end]), kind)
    with pytest.raises(DamagedError, match=f"damaged {kind} data: it ends too early"):
        stream.read()


@pytest.mark.parametrize("kind", Compression)
def test_a_flipped_byte_is_told(kind: Compression) -> None:
    noise = bytes(index * 7919 % 251 for index in range(100_000))
    raw = bytearray(packed(kind, noise))
    raw[6:60] = b"x" * 54
    stream = decompressed(io.BytesIO(bytes(raw)), kind)
    with pytest.raises(DamagedError, match="damaged"):
        stream.read()


def test_what_is_not_compressed() -> None:
    assert compression_of(b'{"a": 1}') is None
