"""Commit markers. An artifact is a folder in the store whose `COMPLETE.json` lists its files (path, size,
SHA-256). The marker is written last, atomically: no marker, no artifact."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from artifacts.contract import canonical_json, decode
from artifacts.store import ObjectMissingError, Sent, Store, open_store

MARKER = "COMPLETE.json"
_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, order=True)
class FileEntry:
    path: str  # relative to the artifact
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`location` is set for an artifact used in place (a base model in a local folder or the hub's cache):
    the URI of the folder that holds the files; only the marker lies in the store."""

    files: list[FileEntry]
    location: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # small JSON values that readers want without a file

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)

    @property
    def content_digest(self) -> str:
        """SHA-256 that stands for the files, wherever they lie (`ModelParams.sha256`)."""
        rows = [[entry.path, entry.size_bytes, entry.sha256] for entry in sorted(self.files)]
        return hashlib.sha256(canonical_json(rows)).hexdigest()


class ArtifactWriter:
    """Writes an artifact's files, hashing as they pass, then the marker.

    Leftovers of an earlier, uncommitted attempt are harmless: the marker lists only what this writer wrote.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self.store, self.prefix = store, prefix
        self.entries: dict[str, FileEntry] = {}

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with self.store.open_write(f"{self.prefix}/{path}") as stream:
            hashing = HashingWriter(stream)
            yield hashing  # type: ignore[misc]
        self.entries[path] = FileEntry(path, hashing.size_bytes, hashing.sha256)

    def write_bytes(self, path: str, data: bytes) -> None:
        self.store.write_bytes(f"{self.prefix}/{path}", data)
        self.entries[path] = FileEntry(path, len(data), hashlib.sha256(data).hexdigest())

    def add_file(self, path: str, source: Path, *, move: bool = False, sent: Sent | None = None) -> None:
        self.add_files({path: source}, move=move, sent=sent)

    def add_folder(self, source: Path, *, move: bool = False, sent: Sent | None = None) -> None:
        files = sorted(path for path in source.rglob("*") if path.is_file())
        self.add_files({file.relative_to(source).as_posix(): file for file in files}, move=move, sent=sent)

    def add_files(
        self,
        files: Mapping[str, Path],
        *,
        move: bool = False,
        sent: Sent | None = None,
        digest: Callable[[Path], tuple[int, str]] | None = None,
    ) -> None:
        """Several at a time. What an attempt that was cut off has left in the store is not sent again; `sent`
        is told its bytes too. `digest` knows size and SHA-256 of a file without reading it again."""
        there = {info.key: info.size_bytes for info in self.store.list(self.prefix)}

        def add(path: str) -> FileEntry:
            key, source = f"{self.prefix}/{path}", files[path]
            size_bytes, sha256 = (digest or hash_file)(source)
            if there.get(key) == size_bytes and self.store.holds(key, sha256):
                if sent is not None:
                    sent(size_bytes)
            else:
                self.store.put_file(key, source, move=move, sha256=sha256, sent=sent)
            return FileEntry(path, size_bytes, sha256)

        with ThreadPoolExecutor(min(len(files), self.store.concurrency) or 1) as pool:
            self.entries |= {entry.path: entry for entry in pool.map(add, files)}

    def adopt(self, entry: FileEntry) -> bool:
        """Take a file into the artifact that an earlier attempt has put, if the store is known to hold it."""
        there = self.store.holds(f"{self.prefix}/{entry.path}", entry.sha256)
        if there:
            self.entries[entry.path] = entry
        return there

    def commit(self, **facts: Any) -> Manifest:
        manifest = Manifest(files=sorted(self.entries.values()), facts=facts)
        write_marker(self.store, self.prefix, manifest)
        return manifest


class HashingWriter(io.RawIOBase):
    """A write-only stream that counts and hashes what passes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash, self.size_bytes = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._stream.write(view)
        self._hash.update(view)
        self.size_bytes += view.nbytes
        return view.nbytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def write_marker(store: Store, prefix: str, manifest: Manifest) -> None:
    """The commit: until this returns the artifact does not exist."""
    store.write_bytes(f"{prefix}/{MARKER}", _sealed(json.loads(canonical_json(manifest))))


def read_marker(store: Store, prefix: str) -> Manifest | None:
    """The artifact's manifest; None where there is no marker, or it is not to the byte what was written."""
    try:
        data = store.read_bytes(f"{prefix}/{MARKER}")
        fields = json.loads(data)
        del fields["sha256"]
        return decode(Manifest, fields) if data == _sealed(fields) else None
    except (ObjectMissingError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _sealed(fields: dict[str, Any]) -> bytes:
    """A manifest with its own digest, so that damage to the marker shows as damage to a file does."""
    return canonical_json(fields | {"sha256": hashlib.sha256(canonical_json(fields)).hexdigest()})


def manifest_at(uri: str) -> Manifest | None:
    """The manifest of the artifact at the address `uri`, with the folder that holds its files; None where
    there is no complete one. Raises ValueError for an address of no store."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    manifest = read_marker(open_store(parent), name)
    return manifest and dataclasses.replace(manifest, location=manifest.location or uri.rstrip("/"))


def is_complete(store: Store, prefix: str) -> bool:
    return read_marker(store, prefix) is not None


def verify(store: Store, prefix: str) -> list[str]:
    """Re-read every byte. One line per problem (`path: what is wrong`); empty when the artifact is whole."""
    manifest = read_marker(store, prefix)
    if manifest is None:
        return [f"{MARKER}: missing or unreadable"]
    source, folder = file_source(store, prefix, manifest)
    problems = []
    for entry in manifest.files:
        try:
            with source.open_read(f"{folder}{entry.path}") as stream:
                size_bytes, sha256 = hash_stream(stream)
        except ObjectMissingError:
            problems.append(f"{entry.path}: missing")
            continue
        except (OSError, ValueError) as error:
            problems.append(f"{entry.path}: can't be read ({error})")
            continue
        if size_bytes != entry.size_bytes:
            problems.append(f"{entry.path}: {size_bytes} bytes, {entry.size_bytes} expected")
        elif sha256 != entry.sha256:
            problems.append(f"{entry.path}: its SHA-256 differs from the manifest's")
    return problems


def local_folder(
    store: Store, prefix: str, *, once: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The folder with the artifact's files: in place where they lie on this machine, else a checked copy in
    the node cache (`artifacts.cache`), which `once` marks as one that nobody will come back for.

    `progress` is told bytes done and bytes in all while files are fetched. Raises ObjectMissingError where
    there is no marker, and what `NodeCache.folder` raises.
    """
    manifest = read_marker(store, prefix)
    if manifest is None:
        raise ObjectMissingError(f"{prefix}/{MARKER}")
    return files_folder(store, prefix, manifest, once=once, progress=progress)


def files_folder(
    store: Store,
    prefix: str,
    manifest: Manifest,
    *,
    once: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """As `local_folder` for a manifest at hand, which may list but some of the artifact's files."""
    source, folder = file_source(store, prefix, manifest)
    path = source.local_path(folder.rstrip("/"))
    if path is not None:
        return path
    from artifacts.cache import NodeCache

    return NodeCache.of_environment().folder(store, prefix, manifest, once=once, progress=progress)


def hash_file(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256 in hex)."""
    with path.open("rb") as stream:
        return hash_stream(stream)


def hash_stream(stream: BinaryIO) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
        size_bytes += len(block)
    return size_bytes, digest.hexdigest()


def file_source(store: Store, prefix: str, manifest: Manifest) -> tuple[Store, str]:
    """Where the artifact's files lie: a store, and what comes before each path to make a key of it."""
    if manifest.location is None:
        return store, f"{prefix}/"
    return open_store(manifest.location), ""
