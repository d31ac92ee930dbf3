"""SHA-256 of local files, remembered: one whose size, time and inode are unchanged is not read again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.manifest import hash_file

#: A file changed this shortly before it was hashed may change again within the clock's resolution: such a
#: digest is used but not remembered (git calls these entries "racily clean").
_RACY_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """What tells a changed file from an unchanged one without reading it."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        facts = path.stat()
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino)


class ChangedError(OSError):
    """The file changed while it was read."""


class Digests:
    """Digests of files; `save` writes what was learnt to the JSON file `path` (None: remember nothing).

    Only `save` writes, so that a plan that is refused leaves no trace.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = _load(path) if path else {}
        self._changed = False

    def sha256(self, path: Path) -> tuple[int, str]:
        """(bytes, SHA-256) of a regular file. Raises OSError, ChangedError among them."""
        return self.derived(path, "sha256", lambda file: hash_file(file)[1])

    def derived(self, path: Path, what: str, compute: Callable[[Path], Any]) -> tuple[int, Any]:
        """(bytes, `compute(path)`), remembered under the name `what` as long as the file is unchanged."""
        before = Stamp.of(path)
        name = f"{what}:{path.absolute()}"
        stamp = [before.size_bytes, before.mtime_ns, before.inode]
        known = self._known.get(name)
        if known is not None and known[:3] == stamp:
            return before.size_bytes, known[3]
        value = compute(path)
        if Stamp.of(path) != before:
            raise ChangedError(f"{path} changed while it was read")
        if time.time_ns() - before.mtime_ns > _RACY_NS:
            self._known[name] = [*stamp, value]
            self._changed = True
        return before.size_bytes, value

    def save(self) -> None:
        """Write what was learnt, atomically. A cache that can't be written is no failure."""
        if self._path is None or not self._changed:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".tmp-")
            with os.fdopen(descriptor, "w") as stream:
                json.dump(self._known, stream)
            Path(temporary).replace(self._path)
            self._changed = False


def _load(path: Path) -> dict[str, list[Any]]:
    """The remembered digests; none where the file is missing or is not what `save` writes."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: entry for name, entry in known.items() if isinstance(entry, list) and len(entry) == 4}
