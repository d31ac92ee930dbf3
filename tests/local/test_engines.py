"""Ray trains what torchrun trains, also when a worker is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import read_marker
from artifacts.segments import read_all
from tests.train import stage_runs, training
from tests.train.stage_runs import PREFIX, RUN_ID
from train.trackers import EVENT_FILE

ROOT = Path(__file__).parents[2]
PARAMS = training.params(method="lora", lora=training.LORA, steps=300, save_every=50)


def start(folder: Path, engine: str) -> tuple[LocalStore, subprocess.Popen[bytes]]:
    store = stage_runs.make_inputs(folder)
    (folder / "plan.json").write_bytes(stage_runs.plan(store, PARAMS, engine).to_json())
    command = [sys.executable, "-m", "train", "train", "--run", RUN_ID]
    command += ["--plan", str(folder / "plan.json"), "--work", str(folder / "work")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (folder / "log").open("wb")
    return store, subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def events(store: LocalStore, kind: str) -> list[dict]:
    return [row for row in read_all(store, f"runs/{RUN_ID}/events") if row["kind"] == kind]


def rows(store: LocalStore) -> list[dict]:
    from train import metrics

    return metrics.merged_from(store, PREFIX)


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, by /proc."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def workers(pid: int) -> list[int]:
    """Ray's training workers below the driver."""
    return [
        child
        for child in descendants(pid)
        if b"RayTrainWorker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_worker_killed_under_ray_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "torchrun").mkdir()
    plain, reference = start(tmp_path / "torchrun", "torchrun")
    assert reference.wait(240) == 0, (tmp_path / "torchrun" / "log").read_text()

    store, driver = start(tmp_path / "ray", "ray")
    deadline = time.monotonic() + 300
    while not events(store, "checkpoint"):
        assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "ray" / "log").read_text()
        time.sleep(0.02)
    ranks = workers(driver.pid)
    assert len(ranks) == PARAMS.world_size
    os.kill(ranks[-1], signal.SIGKILL)
    assert driver.wait(300) == 0, (tmp_path / "ray" / "log").read_text()

    (restart,) = events(store, "restarted")
    assert "died without a word" in restart["reason"]
    assert {row["attempt"] for row in rows(store)} == {1, 2}
    first_of_second = min(row["step"] for row in rows(store) if row["attempt"] == 2)
    assert first_of_second > 50, "continued from a checkpoint"
    assert [(row["step"], row["loss"]) for row in rows(store)] == [
        (row["step"], row["loss"]) for row in rows(plain)
    ]
    files, expected = (
        {entry.path: entry.sha256 for entry in read_marker(which, f"{PREFIX}/final").files}
        for which in (store, plain)
    )
    for told in ("metrics.jsonl", EVENT_FILE):  # with the time
        assert files.pop(told) and expected.pop(told)
    assert files == expected
    assert not workers(driver.pid), "Ray is gone with the driver"
