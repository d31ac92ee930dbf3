"""What the node cache does with single files: locks, small notes, sizes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.contract import canonical_json
from artifacts.download import InputError

_POLL_S = 0.1


class CacheError(InputError):
    """The cache has no room, or can't be used."""


def acquire(lock: int, operation: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait for the lock; `meanwhile` is called again and again."""
    while True:
        try:
            fcntl.flock(lock, operation | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            meanwhile()
            time.sleep(_POLL_S)
        except OSError as error:
            raise CacheError(
                f"the node cache can't be locked: {error.strerror}",
                "SLIPWAY_CACHE names a folder on a file system with locks (a disk of the node, not all "
                "network mounts)",
            ) from error


def read_facts(path: Path) -> dict[str, Any]:
    """A marker or announcement; nothing of one that goes away meanwhile."""
    with contextlib.suppress(OSError, ValueError):
        facts: dict[str, Any] = json.loads(path.read_bytes())
        return facts
    return {"size_bytes": 0, "once": True, "boots": []}


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Never half there, but where the machine goes down."""
    temporary = path.with_name(f"{path.name}.tmp")  # one writer at a time: it holds the entry's lock
    try:
        temporary.write_bytes(canonical_json(facts))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def boot_id() -> str:
    """Names this start of the machine: the same in all its containers."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder; 0 where there is none."""
    sizes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                sizes += Path(parent, name).stat().st_size
    return sizes
