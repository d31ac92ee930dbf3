from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from launcher import machine
from launcher.machine import Gpu, usable_cores, usable_memory_bytes, visible_gpus

LISTING = """\
0, GPU-aaa1, NVIDIA A100-SXM4-80GB, 81920, 8.0
1, GPU-bbb2, NVIDIA A100-SXM4-80GB, 81920, 8.0
2, GPU-ccc3, Tesla T4, 15360, 7.5
"""


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "cores"),
    [
        (8, None, 8),
        (8, "max 100000", 8),
        (8, "250000 100000", 3),  # 2.5 cores of time: three threads use them
        (8, "1000 100000", 1),
        (2, "800000 100000", 2),
        (8, "-1 100000", 8),  # cgroup v1's "no quota"
    ],
)
def test_cores_honour_affinity_and_quota(affinity: int, cpu_max: str | None, cores: int) -> None:
    assert usable_cores(affinity, cpu_max) == cores


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 1000), ("max\n", 1000), ("600\n", 600), ("9223372036854771712", 1000)]
)
def test_memory_honours_the_cgroup(limit: str | None, expected: int) -> None:
    assert usable_memory_bytes(1000, limit) == expected


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", "Tesla T4"]),
        ("", []),
        ("-1", []),
        ("2", ["Tesla T4"]),
        ("2,0", ["Tesla T4", "NVIDIA A100-SXM4-80GB"]),
        ("GPU-ccc", ["Tesla T4"]),
        ("0,7,1", ["NVIDIA A100-SXM4-80GB"]),  # as CUDA: the list ends at the first unknown one
    ],
)
def test_gpus_honour_cuda_visible_devices(visible: str | None, names: list[str]) -> None:
    assert [gpu.name for gpu in visible_gpus(LISTING, visible)] == names


def test_reads_memory_and_capability() -> None:
    assert visible_gpus(LISTING, "2") == (Gpu("Tesla T4", 15360 * 1024**2, (7, 5)),)
    assert visible_gpus("0, GPU-a, Some GPU, 1024, [N/A]\n", None) == (Gpu("Some GPU", 1024**3, None),)


@pytest.mark.parametrize("answer", ["", "No devices were found\n", "0, GPU-a, NVIDIA X, [N/A], 8.0\n"])
def test_no_usable_answer_is_no_gpu(answer: str) -> None:
    assert visible_gpus(answer, None) == ()


def test_detects_this_machine_and_asks_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{LISTING}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = machine.detect({})
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 2**28
    assert len(found.gpus) == 3
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine.detect({}).gpus == ()


@pytest.mark.parametrize("missing", ["llama_cpp", "llama_cpp_converter"])
def test_half_of_llama_cpp_is_none(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert not machine.detect({}).llama_cpp
