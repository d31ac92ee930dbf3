"""Metrics for TensorBoard, MLflow and Weights & Biases, read back by their own readers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from artifacts.events import Events, events_prefix
from artifacts.local import LocalStore
from artifacts.segments import read_all
from tests.train import training
from train import trackers
from train.trackers import Trackers

ROWS = [
    {"step": 1, "loss": 3.5, "grad_norm": 1.25, "mfu": None, "time_s": 100.0, "attempt": 1},
    {"step": 2, "loss": 2.5, "grad_norm": 1.5, "mfu": None, "time_s": 101.0, "attempt": 1},
    {"step": 2, "epoch": 1.0, "eval_loss": 2.75, "time_s": 102.0, "attempt": 1},
]


def task(tmp_path: Path, **more: Any) -> Any:
    store = LocalStore(tmp_path / "store")
    events = Events(store, "run", "train")
    (tmp_path / "work").mkdir(exist_ok=True)
    return training.task(tmp_path, tmp_path, tmp_path, training.params(), events=events, **more)


def scalars(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """By tag: (step, value, Unix time), as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    (tmp_path / Path(trackers.EVENT_FILE).name).write_bytes(trackers.event_file(ROWS))
    assert scalars(tmp_path) == {
        "train/loss": [(1, 3.5, 100.0), (2, 2.5, 101.0)],
        "train/grad_norm": [(1, 1.25, 100.0), (2, 1.5, 101.0)],
        "eval/epoch": [(2, 1.0, 102.0)],
        "eval/loss": [(2, 2.75, 102.0)],
    }


def test_each_attempt_has_its_events_while_it_goes_on(tmp_path: Path) -> None:
    mine = task(tmp_path, attempt=2)
    following = Trackers.of_environment(mine, {})
    following.flush()
    assert list(mine.store.list("train/key/tensorboard")) == [], "nothing yet"
    for row in ROWS[:2]:
        following.append(row)
        following.flush()
    following.close()
    assert scalars(mine.store.local_path("train/key/tensorboard/attempt-002"))["train/loss"] == [
        (1, 3.5, 100.0),
        (2, 2.5, 101.0),
    ]


def test_a_follower_out_of_reach_is_told_once_and_fails_nothing(tmp_path: Path) -> None:
    said: list[str] = []

    def unreachable() -> Any:
        raise ConnectionError("no route to host\nmore")

    following = Trackers(lambda data: None, {"MLflow": unreachable}, said.append)
    for row in ROWS:
        following.append(row)
    following.close()
    assert said == ["MLflow gets no metrics any more: ConnectionError: no route to host"]


def test_who_follows_is_told_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(trackers, "_FollowerThread", lambda name, start, say: started.append(name))
    mine = task(tmp_path)
    for environment, expected in (
        ({}, []),
        ({"WANDB_MODE": "online"}, []),
        ({"WANDB_MODE": "offline"}, ["Weights & Biases"]),
        ({"WANDB_API_KEY": "x"}, ["Weights & Biases"]),
        ({"MLFLOW_TRACKING_URI": "file:/x"}, ["MLflow"]),
    ):
        started.clear()
        Trackers.of_environment(mine, environment)
        assert started == expected


@pytest.mark.matrix
def test_mlflow_keeps_one_run_for_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tries")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow's own condition for a folder
    for attempt, rows in ((1, ROWS[:1]), (2, ROWS[1:])):
        following = Trackers.of_environment(task(tmp_path, attempt=attempt), {"MLFLOW_TRACKING_URI": uri})
        for row in rows:
            following.append(row)
        following.close()
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tries").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["learning_rate"] == "0.01"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 3.5), (2, 2.5)]
    assert run.data.metrics["eval/loss"] == 2.75
    assert list(read_all(LocalStore(tmp_path / "store"), events_prefix("run"))) == []


@pytest.mark.matrix
def test_wandb_offline_writes_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    following = Trackers.of_environment(task(tmp_path), {"WANDB_MODE": "offline"})
    for row in ROWS:
        following.append(row)
    following.close()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    data = file.read_bytes()  # records of JSON values by name; the package has no reader of its own
    for name, value in {"train/loss": "3.5", "train/grad_norm": "1.5", "eval/loss": "2.75"}.items():
        assert re.search(
            re.escape(name).encode() + rb".{1,8}" + re.escape(value).encode(), data, re.DOTALL
        ), name
