"""What a wheel of flash-attention depends on, and how it is compiled. Standard library only: the script
`images/flash-attention/build-wheel` runs this on any machine with CUDA, before anything is installed there.

Facts of flash-attention 2.8.3's setup.py that this leans on: it compiles for the architectures 80, 90, 100
and 120 alone (code of 80 runs on every 8.x), starts nvcc with NVCC_THREADS threads, of use up to one for each
architecture, and MAX_JOBS of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

GB = 10**9
#: Memory of one nvcc thread at its peak: 3.2 to 5.0 GB were seen with torch 2.9 and CUDA 12.8
#: (flash-attention, pull request 2079).
THREAD_BYTES = 5 * GB
#: What is left to others, at least: without it machines went down (flash-attention, issue 2493).
RESERVE_BYTES, RESERVE_SHARE = 16 * GB, 0.15
_COMPILED_FOR = {8: 80, 9: 90, 10: 100, 12: 120}


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """The combination that a wheel is compiled for. Nothing else is in its key."""

    name: ClassVar[str] = "flash-attention"
    files: ClassVar[int] = 1  # wheels that a build makes

    version: str  # of flash-attention
    torch: str
    cuda: str  # major and minor version
    python: str  # "3.12"
    architectures: tuple[int, ...]  # as setup.py takes them: 80, 90, 100, 120
    machine: str = "x86_64"

    @property
    def key(self) -> str:
        """64 hex digits; the wheel lies in the store at `wheels/flash-attention/<key>/`."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        return f"wheels/{self.name}/{self.key}"


def wheel_of(root: Path, python: str, capabilities: Iterable[str], machine: str = "x86_64") -> Wheel:
    """The wheel that the locks below `root` ask for. Raises ValueError for a GPU that flash-attention does
    not know, KeyError where a lock lacks what is looked for."""
    locked = _versions(root / "requirements/train.lock")
    return Wheel(
        version=_versions(root / "requirements/flash-attention.lock")["flash-attn"],
        torch=locked["torch"],
        cuda=".".join(locked["cuda-toolkit"].split(".")[:2]),
        python=python,
        architectures=architectures(capabilities),
        machine=machine,
    )


def architectures(capabilities: Iterable[str]) -> tuple[int, ...]:
    """setup.py's names of compute capabilities: ("8.6", "9.0") → (80, 90). Raises ValueError."""
    found = set()
    for capability in capabilities:
        major = int(capability.split(".")[0])
        if major not in _COMPILED_FOR:
            raise ValueError(f"flash-attention has no kernels for compute capability {capability}")
        found.add(_COMPILED_FOR[major])
    return tuple(sorted(found))


def max_jobs(available_bytes: int, cores: int, nvcc_threads: int) -> int:
    """MAX_JOBS: as many compilers as fit into the memory that may be used, one for each core at most."""
    usable_bytes = available_bytes - max(RESERVE_BYTES, int(available_bytes * RESERVE_SHARE))
    return max(1, min(cores // nvcc_threads or 1, usable_bytes // (THREAD_BYTES * nvcc_threads)))


def build_environment(wheel: Wheel, available_bytes: int, cores: int) -> dict[str, str]:
    """Variables that setup.py reads. One nvcc thread for each architecture, as far as memory goes."""
    threads = min(len(wheel.architectures), 4, max(1, available_bytes // THREAD_BYTES))
    return {
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",  # else it looks for a wheel of the project on GitHub
        "FLASH_ATTN_CUDA_ARCHS": ";".join(map(str, wheel.architectures)),
        "MAX_JOBS": str(max_jobs(available_bytes, cores, threads)),
        "NVCC_THREADS": str(threads),
    }


def pip_commands(python: str, folder: str, output: str) -> list[list[str]]:
    """What is run in `folder`, which holds `wheel.lock` and `flash-attn.lock` (`locked_entry`): the tool that
    setup.py imports, the locked source, and, once that is unpacked to `source/`, its compilation."""
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    locked = ["--no-deps", "--require-hashes", "--requirement"]
    unbuilt = ["--no-binary", "flash-attn", "--no-build-isolation", "--dest", folder]
    here = ["--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir", output]
    return [
        [*pip, "install", *locked, f"{folder}/wheel.lock"],
        [*pip, "download", *unbuilt, *locked, f"{folder}/flash-attn.lock"],
        [*pip, "wheel", *here, f"{folder}/source"],
    ]


def locked_entry(lock: str, name: str) -> str:
    """The entry of one package, with its hashes. Raises KeyError."""
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.M):
        if entry.startswith(f"{name}=="):
            return entry
    raise KeyError(name)


def with_standard_of_torch(setup: str) -> str:
    """setup.py for torch 2.13 and later, whose headers need C++20 (flash-attention, pull request 2899)."""
    return setup.replace("-std=c++17", "-std=c++20")


def available_bytes(meminfo: str, cgroup_limit: str = "max", cgroup_used: str = "0") -> int:
    """Memory that a build may take: /proc/meminfo's MemAvailable, or what the container's limit leaves
    (memory.max and memory.current of cgroup 2)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.M)
    free = int(found[1]) * 1024 if found else 0
    return free if cgroup_limit.strip() == "max" else min(free, int(cgroup_limit) - int(cgroup_used))


def _versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.M))
