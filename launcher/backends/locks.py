"""Locks between processes of this machine, held by an open file (flock) and so released by the kernel.

An flock belongs to the open file description, which forked and spawned children share: a lock taken here
stays held until the last process that inherited the descriptor has ended, however it ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

#: A look at a lock (`is_held`) takes it for an instant; who wants it for good tries again this long.
_LOOKS_LAST_S = 0.2


class FileLock:
    """An exclusive lock on `path`, which is made and never removed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def acquire(self) -> bool:
        """Take the lock if nobody else has it. Taking it twice is fine."""
        deadline = time.monotonic() + _LOOKS_LAST_S
        while not _try_lock(self.descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def release(self) -> None:
        """Give the lock up, also for every process that shares the descriptor."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the descriptor here. The lock stays held while another process has it open."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock on `path`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
