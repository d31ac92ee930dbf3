"""This machine: the cores and memory that processes may use here, and its GPUs. Needs no torch."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The package of llama.cpp's converter, made beside its wheel (images/llama-cpp).
CONVERTER = "llama_cpp_converter"
_MIB = 1024**2
_NVIDIA_SMI_TIMEOUT_S = 20
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    name: str  # as nvidia-smi names it: "NVIDIA H100 80GB HBM3"
    memory_bytes: int
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """`llama_cpp`: what the stage `gguf` needs is installed (`make gguf`)."""

    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    llama_cpp: bool = True


def detect(environment: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine: affinity and cgroup limits count, and CUDA_VISIBLE_DEVICES."""
    return Machine(
        cores=usable_cores(_affinity(), _read(_CGROUP / "cpu.max") or _cpu_max_of_version_1()),
        memory_bytes=usable_memory_bytes(
            _physical_memory_bytes(),
            _read(_CGROUP / "memory.max") or _read(_CGROUP / "memory/memory.limit_in_bytes"),
        ),
        gpus=visible_gpus(_query_nvidia_smi(), environment.get("CUDA_VISIBLE_DEVICES")),
        llama_cpp=all(importlib.util.find_spec(name) for name in ("llama_cpp", CONVERTER)),
    )


def usable_cores(affinity: int, cpu_max: str | None) -> int:
    """Cores by affinity, bounded by the quota of cgroup v2's `cpu.max` (`"<quota> <period>"` in µs)."""
    quota, _, period = (cpu_max or "max").strip().partition(" ")
    if not quota.isdigit() or not period.strip().isdigit():
        return affinity
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))


def usable_memory_bytes(physical_bytes: int, memory_max: str | None) -> int:
    """Physical memory, bounded by the cgroup's limit (`max`, or a huge number, where there is none)."""
    limit = (memory_max or "max").strip()
    return min(physical_bytes, int(limit)) if limit.isdigit() else physical_bytes


def visible_gpus(csv_text: str, visible: str | None) -> tuple[Gpu, ...]:
    """GPUs listed by `nvidia-smi --query-gpu=index,uuid,name,memory.total,compute_cap` (memory in MiB).

    `visible` is CUDA_VISIBLE_DEVICES: indices or UUID beginnings, in its own order; as in CUDA the list
    ends at the first entry that names no GPU.
    """
    gpus: list[tuple[str, str, Gpu]] = []
    for row in csv.reader(csv_text.splitlines(), skipinitialspace=True):
        if len(row) < 4 or not row[3].strip().isdigit():
            continue
        capability = tuple(int(part) for part in row[4].split(".")) if len(row) > 4 and "." in row[4] else ()
        gpu = Gpu(row[2].strip(), int(row[3]) * _MIB, (capability[0], capability[1]) if capability else None)
        gpus.append((row[0].strip(), row[1].strip(), gpu))
    if visible is None:
        return tuple(gpu for _, _, gpu in gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        match = [gpu for index, uuid, gpu in gpus if entry and (entry == index or uuid.startswith(entry))]
        if len(match) != 1:
            break
        chosen += match
    return tuple(chosen)


def _query_nvidia_smi() -> str:
    """nvidia-smi's answer; nothing where there is no driver or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=index,uuid,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cpu_max_of_version_1() -> str | None:
    """cgroup v1's two files in the form of v2's one (a quota of -1 is none)."""
    quota = _read(_CGROUP / "cpu/cpu.cfs_quota_us")
    period = _read(_CGROUP / "cpu/cpu.cfs_period_us")
    return f"{quota.strip()} {period.strip()}" if quota and period else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
