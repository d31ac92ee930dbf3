from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.processes import available_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_containers_share_of_a_node_of_eight_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert available_cores(tmp_path) == expected


def test_a_process_killed_while_it_draws_blocks_nobody() -> None:
    program = (
        "import os, signal, tqdm\n"
        "from train.processes import own_progress_lock\n"
        "own_progress_lock()\n"
        "list(tqdm.tqdm([0]))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    tqdm.tqdm.get_lock().acquire()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
        "list(tqdm.tqdm([1, 2]))\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=20, capture_output=True)
