"""The node cache: checked copies of artifacts of a remote store, one for all processes and pods of a node.

In the folder `$SLIPWAY_CACHE` lie `entries/<digest>/` (an artifact's files) beside `entries/<digest>.json`
(written last: without it there is no entry), `partial/<digest>/` (files of a fetch that is going on, or was
killed) and `locks/<digest>`. The digest is that of the files' contents, whatever the store and key.
Nothing waits for the disk, so a machine that went down may have lost what was written last: an entry is taken
for whole only since the start of the machine in which it was checked, and is read through once after another.

Who fetches or removes an entry holds its lock alone; who reads it shares the lock until the process ends. The
kernel releases the locks of the dead, on any file system of one machine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.cache_files import CacheError, acquire, boot_id, bytes_below, read_facts, write_facts
from artifacts.download import Progress, download
from artifacts.manifest import Manifest, file_source, hash_file
from artifacts.store import Store

#: Left free on the disk, for what the same file system holds beside the cache.
SPARE_BYTES = 64 * 1024 * 1024
_BOOTS_KEPT = 64

#: Locks of the entries that this process (or the one it was forked from) reads, until it ends.
_used: dict[Path, int] = {}


@dataclass(frozen=True, order=True)
class Evictable:
    """What may go when space is short. Ordered: what goes first is the least."""

    rank: int  # 0: left by a fetch that was killed; 1: read once (a checkpoint); 2: any other
    used_at: float  # Unix time of the last use
    digest: str
    size_bytes: int


class NodeCache:
    """The cache in the folder `root`, with `limit_bytes` for all entries (None: as the disk allows)."""

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self.root, self.limit_bytes = root, limit_bytes

    @classmethod
    def of_environment(cls) -> NodeCache:
        """SLIPWAY_CACHE (default `~/.cache/slipway`) and SLIPWAY_CACHE_BYTES."""
        root = os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway"
        limit = os.environ.get("SLIPWAY_CACHE_BYTES")
        return cls(Path(root).absolute(), int(limit) if limit else None)

    def folder(
        self,
        store: Store,
        prefix: str,
        manifest: Manifest,
        *,
        once: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """The folder with the artifact's files, fetched and checked unless it is there; it stays until this
        process ends. `once`: nobody will come back for it, so that it goes first when space is short.

        While another process fetches it, this one waits. Raises CacheError, artifacts.download.DamagedError
        and what the store raises.
        """
        digest = manifest.content_digest
        folder = self._entry(digest)
        total_bytes = manifest.size_bytes

        def meanwhile() -> None:
            if progress is not None:
                progress(bytes_below(self._partial(digest)), total_bytes)

        while folder not in _used:
            with contextlib.ExitStack() as on_failure:
                lock = self._open_lock(digest)
                on_failure.callback(os.close, lock)
                acquire(lock, fcntl.LOCK_SH, meanwhile)
                if self._is_whole(digest, manifest):
                    os.utime(self._marker(digest))
                    on_failure.pop_all()
                    _used[folder] = lock
                    break
                fcntl.flock(lock, fcntl.LOCK_UN)  # others may want it alone, too
                acquire(lock, fcntl.LOCK_EX, meanwhile)
                if not self._is_whole(digest, manifest) and not self._read_through(digest, manifest):
                    self._fetch(store, prefix, manifest, once, progress)
        return folder

    # ------------------------------------------------------------------------------------------------------

    def _fetch(
        self, store: Store, prefix: str, manifest: Manifest, once: bool, progress: Progress | None
    ) -> None:
        """Under the entry's lock, held alone."""
        digest, what = manifest.content_digest, f"{prefix} ({_gigabytes(manifest.size_bytes)})"
        partial, folder = self._partial(digest), self._entry(digest)
        source, before = file_source(store, prefix, manifest)
        try:
            self._remove_entry(digest)
            if read_facts(self._announcement(digest))["boots"] != [boot_id()]:
                self._forget_fetch(digest)
            self._make_room(digest, manifest.size_bytes, what)
            download(source, before, manifest.files, partial, progress)
            partial.replace(folder)
            boots = [boot_id()]
            facts = {"size_bytes": manifest.size_bytes, "once": once, "prefix": prefix, "boots": boots}
            write_facts(self._marker(digest), facts)
            self._announcement(digest).unlink()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._forget_fetch(digest)
            raise self._full(what) from error

    def _make_room(self, digest: str, size_bytes: int, what: str) -> None:
        """Announce a fetch of this size; evict until it fits beside the fetches that others announced."""
        lock = self._open_lock("room")
        try:
            acquire(lock, fcntl.LOCK_EX)
            partial = self._partial(digest)
            partial.mkdir(parents=True, exist_ok=True)
            write_facts(self._announcement(digest), {"size_bytes": size_bytes, "boots": [boot_id()]})
            evictable = iter(sorted(self._evictable(digest)))
            while (missing_bytes := self._missing_bytes()) > 0:
                candidate = next(evictable, None)
                if candidate is None:
                    self._forget_fetch(digest)
                    raise self._full(f"{what}, {_gigabytes(missing_bytes)} short")
                self._evict(candidate.digest)
        finally:
            os.close(lock)

    def _missing_bytes(self) -> int:
        """What has to go before all announced fetches fit; not positive when they do."""
        announced = {path.stem: read_facts(path)["size_bytes"] for path in self.root.glob("partial/*.json")}
        coming = sum(max(0, size - bytes_below(self._partial(digest))) for digest, size in announced.items())
        missing: int = coming + SPARE_BYTES - shutil.disk_usage(self.root).free
        if self.limit_bytes is not None:
            kept = sum(read_facts(path)["size_bytes"] for path in self.root.glob("entries/*.json"))
            missing = max(missing, kept + sum(announced.values()) - self.limit_bytes)
        return missing

    def _evictable(self, but: str) -> Iterator[Evictable]:
        for path in self.root.glob("entries/*.json"):
            facts = read_facts(path)
            rank = 1 if facts["once"] else 2
            yield Evictable(rank, path.stat().st_mtime, path.stem, facts["size_bytes"])
        for path in self.root.glob("partial/*.json"):
            if path.stem != but:
                yield Evictable(0, path.stat().st_mtime, path.stem, 0)

    def _evict(self, digest: str) -> None:
        """Remove an entry and what a killed fetch left of it, unless somebody uses or fetches it."""
        lock = self._open_lock(digest)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove_entry(digest)
            self._forget_fetch(digest)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)

    def _remove_entry(self, digest: str) -> None:
        """The marker first, so that no half of it is taken for whole."""
        self._marker(digest).unlink(missing_ok=True)
        shutil.rmtree(self._entry(digest), ignore_errors=True)

    def _forget_fetch(self, digest: str) -> None:
        shutil.rmtree(self._partial(digest), ignore_errors=True)
        self._announcement(digest).unlink(missing_ok=True)

    def _is_whole(self, digest: str, manifest: Manifest) -> bool:
        """Its bytes were checked when they came; here only that nobody took files away."""
        folder = self._entry(digest)
        try:
            return boot_id() in read_facts(self._marker(digest))["boots"] and all(
                (folder / entry.path).stat().st_size == entry.size_bytes for entry in manifest.files
            )
        except OSError:
            return False

    def _read_through(self, digest: str, manifest: Manifest) -> bool:
        """Check every byte of an entry of before, under its lock, held alone. False where it is not whole."""
        folder, facts = self._entry(digest), read_facts(self._marker(digest))
        try:
            if not facts["boots"] or any(
                hash_file(folder / entry.path)[1] != entry.sha256 for entry in manifest.files
            ):
                return False
        except OSError:
            return False
        # Nodes that share the folder have a start each.
        write_facts(self._marker(digest), {**facts, "boots": [*facts["boots"], boot_id()][-_BOOTS_KEPT:]})
        return True

    def _full(self, what: str) -> CacheError:
        entries = list(self.root.glob("entries/*.json"))
        kept = _gigabytes(sum(read_facts(path)["size_bytes"] for path in entries))
        limit = "" if self.limit_bytes is None else f" of {_gigabytes(self.limit_bytes)}"
        return CacheError(
            f"no space left in the node cache {self.root}{limit} for {what}: {len(entries)} entries in use "
            f"({kept}), {_gigabytes(shutil.disk_usage(self.root).free)} free on the disk",
            "enlarge cache.size of the cluster profile, or the disk behind it (cache.claim, cache.host_path)",
        )

    def _entry(self, digest: str) -> Path:
        return self.root / "entries" / digest

    def _marker(self, digest: str) -> Path:
        return self.root / "entries" / f"{digest}.json"

    def _partial(self, digest: str) -> Path:
        return self.root / "partial" / digest

    def _announcement(self, digest: str) -> Path:
        return self.root / "partial" / f"{digest}.json"

    def _open_lock(self, name: str) -> int:
        """A descriptor of the lock's file. Raises CacheError where the folder can't be used."""
        try:
            for folder in ("entries", "partial", "locks"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            return os.open(self.root / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CacheError(
                f"the node cache {self.root} can't be used: {error.strerror}",
                "SLIPWAY_CACHE names a folder that this user may write",
            ) from error


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
