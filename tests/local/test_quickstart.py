"""The quickstart as a newcomer runs it, and what becomes of it when it is stopped, killed and changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.events import events_prefix
from artifacts.local import LocalStore
from artifacts.segments import read_all
from launcher.pilots.local import LocalPilots

ROOT = Path(__file__).parents[2]
JOB = str(ROOT / "examples/quickstart.yaml")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Place:
    """A working directory and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / ".slipway/store")
        self.work = folder / ".slipway/work"

    def slipway(self, *argv: str, first_on_path: Path | None = None) -> str:
        """Run a command that must succeed; returns its standard output."""
        search = [str(path) for path in (first_on_path, ROOT) if path is not None]
        ended = subprocess.run(
            [sys.executable, "-m", "launcher.cli", *argv],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "CI": "1"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def submit(self, *argv: str, **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.slipway("submit", *argv, "--json", **options))
        return result

    def hosts(self, run_id: str) -> bool:
        """Whether the run ever had a stage host."""
        return (self.work / "runs" / run_id / "logs/host.log").exists()

    def events(self, run_id: str, stage: str, kind: str) -> list[dict[str, Any]]:
        rows = read_all(self.store, events_prefix(run_id))
        found = [row for row in rows if (row["stage"], row["kind"]) == (stage, kind)]
        return sorted(found, key=lambda row: float(row["time_s"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("quickstart"))
    yield place
    assert not LocalPilots("local", place.store, place.work).alive_runs()


@pytest.fixture(scope="module")
def quickstart(place: Place) -> dict[str, Any]:
    """What the first submit says at its end."""
    return place.submit(JOB)


def test_training_visibly_changes_the_answers(quickstart: dict[str, Any]) -> None:
    scores = quickstart["scores"]
    assert scores["base"]["exact_match"] <= 5
    assert scores["tuned"]["exact_match"] >= 80
    assert len(quickstart["answers"]) == 3
    for answer in quickstart["answers"]:
        assert answer["prompt"] and answer["reference"] and answer["base"] != answer["tuned"]


def test_it_leaves_a_merged_model_and_a_report(quickstart: dict[str, Any], place: Place) -> None:
    model = Path(quickstart["model"])
    assert {"config.json", "tokenizer.json"} <= {path.name for path in model.iterdir()}
    assert list(model.glob("*.safetensors"))
    report = Path(quickstart["report"]).read_text()
    assert "<html" in report and quickstart["run"] in report
    assert "ok   merged/" in place.slipway("verify", quickstart["run"])


def test_the_repeat_is_quick_and_starts_and_imports_nothing_heavy(
    quickstart: dict[str, Any], place: Place, tmp_path: Path
) -> None:
    for library in ("torch", "ray", "transformers"):
        (tmp_path / f"{library}.py").write_text(f"raise SystemExit('{library} was imported')")
    (host_log,) = place.work.glob("runs/*/logs/host.log")
    before = host_log.stat()
    began = time.monotonic()
    again = place.submit(JOB, first_on_path=tmp_path)
    assert time.monotonic() - began <= 5
    assert again == quickstart
    assert host_log.stat() == before


def test_leaving_out_a_stage_runs_nothing(quickstart: dict[str, Any], place: Place) -> None:
    merged_only = place.submit(JOB, "--set", "after=[merge]")
    assert merged_only["model"] == quickstart["model"] and merged_only["scores"] == {}
    assert not place.hosts(merged_only["run"])


def test_other_predictions_train_nothing(quickstart: dict[str, Any], place: Place) -> None:
    shorter = place.submit(JOB, "--set", "predict.max_new_tokens=4", "--set", "predict.base=false")
    assert shorter["model"] == quickstart["model"]
    assert list(shorter["scores"]) == ["tuned"]
    started = [
        stage
        for stage in ("model", "prepare", "train", "merge", "predict")
        if place.events(shorter["run"], stage, "started")
    ]
    assert started == ["predict"]


def test_cancelled_then_killed_it_goes_on_from_its_checkpoints(
    quickstart: dict[str, Any], place: Place
) -> None:
    """Another learning rate: data, model and tokens are there, training is not."""
    changes = ("training.learning_rate=8e-3", "training.save_every=10", "after=[merge]")
    submit = [JOB, *(f"--set={change}" for change in changes)]
    run_id = place.submit(*submit, "--detach")["run"]

    _wait_for_checkpoints(place, run_id, 1)
    cancelled = json.loads(place.slipway("cancel", run_id, "--json"))
    assert cancelled["state"] == "drained"
    saved = cancelled["checkpoint_step"]

    place.slipway("resume", run_id, "--detach")
    _wait_for_checkpoints(place, run_id, 2, since_step=saved)
    _kill_tree(place.events(run_id, "run", "started")[-1]["pid"])
    assert json.loads(place.slipway("status", run_id, "--json"))["state"] == "interrupted"

    place.submit(*submit)
    assert not place.events(run_id, "prepare", "started")
    starts = [row["time_s"] for row in place.events(run_id, "train", "started")]
    assert len(starts) == 3
    steps = [_first_step_after(place, run_id, start) for start in starts]
    assert steps[0] < 10 < saved <= steps[1] < steps[2]


def test_a_rehearsal_of_a_job_on_a_model_folder(
    quickstart: dict[str, Any], place: Place, tmp_path: Path
) -> None:
    data = ROOT / "examples/quickstart"
    job = tmp_path / "second.yaml"
    job.write_text(
        f"name: second\nmodel:\n  folder: {quickstart['model']}\n"
        f"data:\n  train: {data}/train.jsonl\n  test: {data}/test.jsonl\n"
        "method: lora\ntraining:\n  epochs: 100\n  max_length: 128\n"
    )
    rehearsed = place.submit(str(job), "--rehearse")
    assert rehearsed["model"] != quickstart["model"] and "tuned" in rehearsed["scores"]
    progress = place.events(rehearsed["run"], "train", "progress")
    assert progress[-1]["total"] < 50


def _wait_for_checkpoints(place: Place, run_id: str, count: int, *, since_step: int = 0) -> None:
    deadline = time.monotonic() + 180
    while True:
        found = {
            row["step"] for row in place.events(run_id, "train", "checkpoint") if row["step"] > since_step
        }
        if len(found) >= count:
            return
        assert time.monotonic() < deadline and not place.events(run_id, "run", "failed")
        time.sleep(0.1)


def _first_step_after(place: Place, run_id: str, time_s: float) -> int:
    rows = place.events(run_id, "train", "progress")
    return int(next(row["done"] for row in rows if row["time_s"] > time_s and row["unit"] == "steps"))


def _kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it, all stopped first so that none can react to another's end."""
    tree, to_visit = [], [pid]
    while to_visit:
        process = to_visit.pop()
        os.kill(process, signal.SIGSTOP)
        tree.append(process)
        for task in Path(f"/proc/{process}/task").iterdir():
            to_visit += map(int, (task / "children").read_text().split())
    for process in tree:
        os.kill(process, signal.SIGKILL)
