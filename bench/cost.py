"""What a function costs: CPU seconds of this process and its children, wall seconds, peak memory."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path


def cost(run: Callable[[], object]) -> dict[str, float]:
    """`cpu_s`, `wall_s` and `peak_rss_bytes` (of this process alone, since it started)."""
    cpu_s, started_s = _cpu_seconds(), time.monotonic()
    run()
    # ru_maxrss would count the parent before exec, too
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {
        "cpu_s": _cpu_seconds() - cpu_s,
        "wall_s": time.monotonic() - started_s,
        "peak_rss_bytes": int(peak[1]) * 1024,
    }


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
