"""Object storage behind one small interface: a local folder, or the prefix of an S3 bucket.

Keys are relative POSIX paths (`train/<key>/final/COMPLETE.json`). An object is whole or absent: writers never
leave a partial one under its key. Nothing can be appended to; two writers settle by `if_absent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

#: Told the bytes of each piece once it is in the store; may be called from any thread.
Sent = Callable[[int], None]


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


@dataclass(frozen=True, kw_only=True)
class UnfinishedWrite:
    """What a writer that was killed has left: under no key, in no list. `token` is the store's own."""

    name: str
    size_bytes: int
    token: str


class Store(Protocol):
    """What stages may ask of object storage. Every write is durable when it returns. Methods may be called
    from several threads, and after a fork. Those that reach the service raise StoreError."""

    @property
    def uri(self) -> str:
        """`file:///…` or `s3://bucket/prefix`, without a trailing slash."""
        ...

    @property
    def concurrency(self) -> int:
        """Writes that are worth having on their way at a time."""
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

    def put_file(
        self, key: str, source: Path, *, move: bool = False, sha256: str = "", sent: Sent | None = None
    ) -> None:
        """Upload a file; with `move` the source may be taken away instead of copied. `sha256`, the file's
        digest in hex, is kept beside the object where the store can."""
        ...

    def holds(self, key: str, sha256: str) -> bool:
        """Whether the object is known to have that digest; False where only reading it would tell."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with the folder `prefix` + '/' (`""`: all), in key order."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Deleting what is not there is fine."""
        ...

    def delete_many(self, keys: Iterable[str]) -> None:
        """`delete` of each, in any order."""
        ...

    def unfinished(self, older_than_s: float) -> Iterator[UnfinishedWrite]:
        """Writes begun (or last touched) at least so long ago that never ended."""
        ...

    def discard(self, write: UnfinishedWrite) -> None:
        """Free what an unfinished write takes."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object's (or folder's; `""` is the root) path where the store is a local folder, else None."""
        ...


def key_parts(key: str) -> list[str]:
    """The names in a key, of which none leads elsewhere. Raises ValueError."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise ValueError(f"not a store key: {key!r}")
    return parts


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
