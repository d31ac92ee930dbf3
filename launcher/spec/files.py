"""What is wrong with a local file that a job or profile names, in plain words. Only looks at it."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Fault:
    """Why a path can't be used, and the way out (may be empty)."""

    why: str
    way_out: str = ""


def file_fault(path: Path, *, inside: Path | None = None) -> Fault | None:
    """Why `path` can't be read as a regular file; None where it can.

    A FIFO or device is recognised without being opened, since opening one may block. `inside` is the job
    file's folder, see `escape_fault`.
    """
    if inside is not None and (escape := escape_fault(path, inside)):
        return escape
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return _stat_fault(path, error)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "not a regular file")
        return Fault(f"is {kind}, where a file is needed", _file_in_folder(path))
    if not os.access(path, os.R_OK):
        return Fault("can't be read: permission denied", f"chmod u+r {path}")
    if status.st_size == 0:
        return Fault("the file is empty (0 bytes)")
    return None


def folder_fault(path: Path, *, inside: Path | None = None) -> Fault | None:
    """Why `path` can't be used as a folder of files; None where it can."""
    if inside is not None and (escape := escape_fault(path, inside)):
        return escape
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return _stat_fault(path, error)
    if not stat.S_ISDIR(status.st_mode):
        return Fault("is not a folder")
    if not os.access(path, os.R_OK | os.X_OK):
        return Fault("the folder can't be read: permission denied", f"chmod u+rx {path}")
    return None


def escape_fault(path: Path, inside: Path) -> Fault | None:
    """A path below the folder `inside` that a symlink leads out of it.

    Absolute paths and `../` are the user's own words and allowed; a symlink that came with a folder (an
    unpacked archive, a clone) is not, and could carry any readable file into the store.
    """
    folder, written = Path(os.path.abspath(inside)), Path(os.path.abspath(path))  # noqa: PTH100 - keep links
    if not written.is_relative_to(folder):
        return None
    try:
        target, real_folder = written.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of symlinks, reported by stat
        return None
    if target.is_relative_to(real_folder):
        return None
    return Fault(
        f"is a symlink that leads out of {inside} to {target}",
        f"write the path {target} itself, or copy the file here",
    )


def _stat_fault(path: Path, error: OSError | ValueError) -> Fault:
    if isinstance(error, ValueError):  # an embedded NUL
        return Fault("is not a possible file name")
    if error.errno == errno.ELOOP:
        return Fault("is a symlink that leads back to itself")
    if error.errno == errno.EACCES:
        return Fault("can't be reached: permission denied on a folder above it")
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return Fault(f"can't be read: {os.strerror(error.errno or 0).lower()}")
    if path.is_symlink():
        return Fault(f"is a symlink to {path.readlink()}, which does not exist")
    return Fault("does not exist", _nearest(path))


def _nearest(path: Path) -> str:
    """The way out for a missing path: a file of nearly that name, or the part that is missing."""
    if not path.parent.is_dir():
        missing = path.parent
        while not missing.parent.is_dir():
            missing = missing.parent
        return f"there is no folder {missing}"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names[:2000], n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else ""


def _file_in_folder(path: Path) -> str:
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        return ""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    return f"name a file in it, as {path / names[0]}" if names else ""
