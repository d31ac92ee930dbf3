"""Linux process house-keeping that Python has no word for."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_CGROUPS = Path("/sys/fs/cgroup")


def available_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores that this process may keep busy: those it may run on, no more than its container's share of time,
    rounded up. A container on a large node sees all cores of the node."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no quota ("max"), or no such file
        quota, period = map(float, (cgroups / "cpu.max").read_text().split())
        return max(1, min(cores, math.ceil(quota / period)))
    with contextlib.suppress(OSError, ValueError):  # cgroup v1; -1 is no quota
        quota, period = (
            float((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
        )
        return max(1, min(cores, math.ceil(quota / period))) if quota > 0 else cores
    return cores


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `number` to this process when its parent, of that pid, ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), number)


def own_progress_lock() -> None:
    """Progress bars of this process and those forked from it lock for themselves: tqdm's own lock is shared
    by forks, and one that is killed while it draws would block all the others for ever."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


def reset_signals() -> None:
    """Default handling of the signals that a forked process inherited handlers for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
