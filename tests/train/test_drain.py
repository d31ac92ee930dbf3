"""Emptying a pod: those who work in it see the stop file and are waited for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from train import drain

ROOT = Path(__file__).parents[2]


def preStop(work: Path, wait_s: float) -> subprocess.Popen[str]:  # noqa: N802 - Kubernetes' word
    command = [sys.executable, "-m", "train.drain", "--work", str(work), "--wait", str(wait_s)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_it_waits_for_all_who_work_here(tmp_path: Path) -> None:
    with drain.busy(tmp_path):
        with drain.busy(tmp_path):
            assert not drain.is_asked_to_stop(tmp_path)
            process = preStop(tmp_path, 30)
            deadline = time.monotonic() + 10
            while not drain.is_asked_to_stop(tmp_path):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    assert process.communicate(timeout=10) == (None, "") and process.returncode == 0


def test_it_gives_up_in_time(tmp_path: Path) -> None:
    with drain.busy(tmp_path):
        started = time.monotonic()
        process = preStop(tmp_path, 0.2)
        assert process.communicate(timeout=10)[1] == "still busy after 0.2 s\n"
        assert process.returncode == 0 and time.monotonic() - started < 5
    assert drain.is_asked_to_stop(tmp_path)


def test_nobody_to_wait_for(tmp_path: Path) -> None:
    assert preStop(tmp_path, 30).wait(10) == 0
    assert preStop(tmp_path / "never-made", 30).wait(10) == 0
    assert not drain.is_asked_to_stop(tmp_path / "never-made")


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    code = "import pathlib, sys; from train import drain; work = drain.busy(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{code}; work.__enter__(); input()", str(tmp_path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    deadline = time.monotonic() + 10
    while drain.wait_idle(tmp_path, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ending = threading.Timer(0.2, holder.kill)
    ending.start()
    assert drain.wait_idle(tmp_path, 10)
    holder.wait()


def test_a_stop_file_of_the_container_before_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drain.ask_to_stop(tmp_path)
    assert drain.is_asked_to_stop(tmp_path)
    monkeypatch.setattr(drain, "_container", lambda: "12345")
    assert not drain.is_asked_to_stop(tmp_path)
