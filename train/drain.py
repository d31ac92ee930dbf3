"""How a pod is emptied before it ends: its stop file and the lock of those who work in it.

`python -m train.drain --work DIR --wait SECONDS` is what a pod runs before its containers get SIGTERM.
It leaves a stop file, which the ranks and the training's entrypoint in this pod look for at each step, and
waits until none of them holds the lock any more. Standard library only: it must start at once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_STOP, _BUSY = "stop", "busy"
_POLL_S = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m train.drain", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/work"), help="the pod's scratch folder")
    parser.add_argument(
        "--wait", type=float, default=3600, help="seconds; the pod's grace period ends it too"
    )
    options = parser.parse_args()
    if options.work.is_dir():
        ask_to_stop(options.work)
        if not wait_idle(options.work, options.wait):
            print(f"still busy after {options.wait:g} s", file=sys.stderr)
    return 0


def ask_to_stop(work: Path) -> None:
    (work / _STOP).write_text(_container())


def is_asked_to_stop(work: Path) -> bool:
    """Whether this container is to end. A stop file that it found there at its start is from the one before,
    which ended for good reasons of its own (a probe, too little memory) in the same pod."""
    try:
        return (work / _STOP).read_text() == _container()
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def busy(work: Path) -> Iterator[None]:
    """Hold the lock of those who work here, together with the others of them."""
    with (work / _BUSY).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def wait_idle(work: Path, wait_s: float) -> bool:
    """Until nobody is busy here; False where somebody still is after `wait_s`."""
    deadline = time.monotonic() + wait_s
    with (work / _BUSY).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_S)


def _container() -> str:
    """What tells one start of a container from the next: when its first process began, in clock ticks since
    the machine's start (field 22 of proc_pid_stat(5))."""
    return Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]


if __name__ == "__main__":
    sys.exit(main())
