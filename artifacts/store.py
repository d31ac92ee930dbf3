"""Object storage behind one small interface: a local folder now, an S3 bucket prefix beside it.

Keys are relative POSIX paths (`train/<key>/final/COMPLETE.json`). An object is whole or absent: writers never
leave a partial one under its key. Nothing can be appended to; two writers settle by `if_absent`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit


class ObjectMissingError(KeyError):
    """The store has no object under that key."""


class StoreError(Exception):
    """The store can't be used: no such bucket, refused credentials, no way to the service. `way_out`: what
    the user can do."""

    def __init__(self, what: str, why: str, way_out: str = "") -> None:
        super().__init__(what, why, way_out)
        self.what, self.why, self.way_out = what, why, way_out

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" + (f"; {self.way_out}" if self.way_out else "")


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int


class Store(Protocol):
    """What stages may ask of object storage. Every write is durable when it returns."""

    @property
    def uri(self) -> str:
        """`file:///…` or `s3://bucket/prefix`, without a trailing slash."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """Raises ObjectMissingError."""
        ...

    def open_read(self, key: str) -> BinaryIO:
        """A stream over the object. Raises ObjectMissingError."""
        ...

    def open_write(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A stream that becomes the object when the block ends well, and nothing otherwise."""
        ...

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a small object. With `if_absent`, False where the key was already taken (nothing written)."""
        ...

    def put_file(self, key: str, source: Path, *, move: bool = False) -> None:
        """Upload a file; with `move` the source may be taken away instead of copied."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with the folder `prefix` + '/' (`""`: all), in key order."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object's (or folder's; `""` is the root) path where the store is a local folder, else None."""
        ...


def file_uri_path(uri: str) -> Path | None:
    """The path that a `file:///…` URI names; None for any other URI."""
    parts = urlsplit(uri)
    local = parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/")
    return Path(unquote(parts.path)) if local else None


def open_store(uri: str) -> Store:
    """Open the store that `uri` names: `file:///folder`, a plain path or `s3://bucket/prefix`. Opens no
    connection. Raises ValueError."""
    scheme = urlsplit(uri).scheme
    path = Path(uri) if scheme == "" else file_uri_path(uri)
    if path is not None:
        from artifacts.local import LocalStore

        return LocalStore(path)
    if scheme == "s3" and urlsplit(uri).netloc:
        from artifacts.s3 import S3Store

        return S3Store(urlsplit(uri).netloc, urlsplit(uri).path)
    if scheme == "file":
        raise ValueError(f"store {uri}: a file URI has three slashes and an absolute path: file:///folder")
    raise ValueError(
        f"store {uri}: no store for '{scheme}://' here; use a folder (file:///…) or s3://bucket/prefix"
    )
