"""What decides how flash-attention is compiled, and that the script says so without compiling."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.images.flash_attention import (
    GB,
    Wheel,
    architectures,
    available_bytes,
    build_environment,
    locked_entry,
    max_jobs,
    pip_commands,
    wheel_of,
    with_standard_of_torch,
)
from launcher.stages.code import ROOT
from launcher.stages.image import PYTHON

WHEEL = Wheel(version="2.8.3", torch="2.15.0", cuda="13.2", python="3.12", architectures=(80, 90))


def test_every_part_of_the_combination_is_in_the_key() -> None:
    others = [
        dataclasses.replace(WHEEL, **{name: value})
        for name, value in {
            "version": "2.9",
            "torch": "2.16.0",
            "cuda": "13.3",
            "python": "3.13",
            "architectures": (80,),
            "machine": "aarch64",
        }.items()
    ]
    assert len({wheel.key for wheel in [WHEEL, *others]}) == len(dataclasses.fields(Wheel)) + 1
    assert WHEEL.prefix == f"wheels/flash-attention/{WHEEL.key}" and len(WHEEL.key) == 64


def test_the_locks_name_the_combination() -> None:
    wheel = wheel_of(ROOT, PYTHON, ["9.0"])
    train = (ROOT / "requirements/train.lock").read_text()
    assert f"torch=={wheel.torch} " in train and f"cuda-toolkit=={wheel.cuda}." in train
    assert wheel.architectures == (90,) and wheel.python == "3.12"


def test_architectures_as_setup_py_takes_them() -> None:
    assert architectures(["9.0", "8.6", "8.0", "10.0"]) == (80, 90, 100)
    with pytest.raises(ValueError, match=r"7\.5"):
        architectures(["7.5"])


@pytest.mark.parametrize(
    ("memory_gb", "cores", "threads", "jobs"),
    [
        (8, 8, 1, 1),  # never none
        (32, 8, 1, 3),  # 16 GB for others, 5 GB each
        (64, 32, 4, 2),
        (256, 16, 4, 4),  # no more threads than cores
        (880, 96, 4, 24),
        (880, 1000, 4, 37),  # 15 % for others
    ],
)
def test_compilers_fit_into_memory_and_cores(memory_gb: int, cores: int, threads: int, jobs: int) -> None:
    assert max_jobs(memory_gb * GB, cores, threads) == jobs


def test_variables_of_setup_py() -> None:
    found = build_environment(WHEEL, 64 * GB, 32)
    assert found == {
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "FLASH_ATTN_CUDA_ARCHS": "80;90",
        "MAX_JOBS": "4",
        "NVCC_THREADS": "2",
    }
    assert build_environment(WHEEL, 8 * GB, 32)["NVCC_THREADS"] == "1"


def test_memory_is_that_of_the_container() -> None:
    meminfo = "MemTotal: 100 kB\nMemAvailable:    2048 kB\n"
    assert available_bytes(meminfo) == 2048 * 1024
    assert available_bytes(meminfo, "1000000\n", "400000\n") == 600_000


def test_only_what_is_locked_is_installed() -> None:
    tool, source, compilation = pip_commands("python", "/f", "/out")
    assert all("--require-hashes" in command for command in (tool, source))
    assert all("--no-deps" in command for command in (tool, source, compilation))
    assert compilation[-3:] == ["--wheel-dir", "/out", "/f/source"]
    lock = (ROOT / "requirements/flash-attention.lock").read_text()
    assert re.match(
        r"flash-attn==\S+ \\\n    --hash=sha256:[0-9a-f]{64}\n$", locked_entry(lock, "flash-attn")
    )
    with pytest.raises(KeyError):
        locked_entry(lock, "flash")


def test_torch_headers_get_their_standard() -> None:
    assert with_standard_of_torch('["-O3", "-std=c++17"]') == '["-O3", "-std=c++20"]'


def build_wheel(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "images/flash-attention/build-wheel"
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


def test_the_script_says_what_it_would_do(tmp_path: Path) -> None:
    result = build_wheel("--architectures", "8.6 9.0", "--output", str(tmp_path), "--dry-run")
    assert result.returncode == 0, result.stderr
    said, end = json.JSONDecoder().raw_decode(result.stdout)
    python = "{}.{}".format(*sys.version_info)
    assert said["key"] == wheel_of(ROOT, python, ["8.0", "9.0"]).key
    assert said["variables"]["FLASH_ATTN_CUDA_ARCHS"] == "80;90" and int(said["variables"]["MAX_JOBS"]) >= 1
    commands = result.stdout[end:].strip().splitlines()
    assert commands[2].endswith(f"--wheel-dir {tmp_path} {commands[2].rpartition(' ')[2]}")
    assert not list(tmp_path.iterdir())


def test_the_script_refuses_gpus_that_it_has_no_kernels_for(tmp_path: Path) -> None:
    result = build_wheel("--architectures", "7.0", "--output", str(tmp_path))
    assert result.returncode == 2 and "7.0" in result.stderr
