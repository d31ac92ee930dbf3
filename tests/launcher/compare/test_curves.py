"""On which axis curves are compared, and their points there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from launcher.compare.curves import METRICS, axes, fair_axis, in_parts, is_log, points
from launcher.compare.runs import Run
from tests.launcher.compare.compared import pair, with_another
from tests.launcher.compare.test_origins import with_stage

LOSS, EVAL_LOSS, LEARNING_RATE, _ = METRICS


def test_by_step_where_a_step_is_the_same(tmp_path: Path) -> None:
    assert fair_axis(pair(tmp_path)) == ("step", "")


def test_by_epoch_where_batches_differ(tmp_path: Path) -> None:
    runs = with_another(tmp_path, other={"gradient_accumulation_steps": 4})
    axis, reason = fair_axis(runs)
    assert axis == "epoch"
    assert "16 and 32 sequences" in reason
    assert [points(run, LOSS, "step")[-1][0] for run in runs] == [90, 45]
    assert [points(run, LOSS, "epoch")[-1][0] for run in runs] == [3, 3]


def test_by_supervised_tokens_where_the_data_differs(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    other = with_stage(second, StageKind.PREPARE, key="ee" * 8)
    assert fair_axis([first, other])[0] == "step"  # the same files
    made = {**other.facts.manifests, "prepare": other.facts.manifests["data"]}
    other = dataclasses.replace(other, facts=dataclasses.replace(other.facts, manifests=made))
    assert fair_axis([first, other])[0] == "supervised tokens"
    unknown = dataclasses.replace(other, facts=dataclasses.replace(other.facts, prepared=None))
    assert fair_axis([first, unknown])[0] == "step"
    assert points(first, LOSS, "supervised tokens")[-1][0] == pytest.approx(3 * 384 * 39)
    assert points(unknown, LOSS, "supervised tokens") == []


def test_minutes_leave_out_pauses_between_attempts(tmp_path: Path) -> None:
    run = pair(tmp_path)[0]
    rows = [
        {"step": 1, "epoch": 0.1, "loss": 3.0, "time_s": 0, "attempt": 1},
        {"step": 2, "epoch": 0.2, "loss": 2.0, "time_s": 60, "attempt": 1},
        {"step": 3, "epoch": 0.3, "loss": 1.0, "time_s": 9060, "attempt": 2},
        {"step": 4, "epoch": 0.4, "loss": 1.0, "time_s": 9120, "attempt": 2},
    ]
    run = dataclasses.replace(run, facts=dataclasses.replace(run.facts, steps=rows))
    assert [x for x, _ in points(run, LOSS, "minutes")] == [0, 1, 1, 2]


def test_evaluations_lie_where_their_step_does(tmp_path: Path) -> None:
    run = pair(tmp_path)[0]
    for axis in axes([run]):
        at = dict(zip([row["step"] for row in run.facts.steps], points(run, LOSS, axis), strict=True))
        assert [x for x, _ in points(run, EVAL_LOSS, axis)] == [at[step][0] for step in (30, 60, 90)]


def test_no_axis_without_training(tmp_path: Path) -> None:
    runs: list[Run] = with_another(tmp_path, until=StageKind.PREPARE, ending="failed")
    assert points(runs[1], LOSS, "step") != []  # the artifact is another run's too
    empty = dataclasses.replace(runs[1].facts, steps=[], evaluations=[])
    assert axes([dataclasses.replace(runs[1], facts=empty)]) == []


def test_parts() -> None:
    found = [(float(x), float(x)) for x in range(1, 11)]
    assert in_parts(found, 10.0, 5) == [1.5, 3.5, 5.5, 7.5, 9.5]
    assert in_parts(found, 10.0, 5, last=True) == [2, 4, 6, 8, 10]
    assert in_parts(found, 20.0, 4) == [3, 8, None, None]
    assert in_parts([(0.0, 1.0)], 0.0, 2) == [1, None]


def test_losses_that_fall_far_are_drawn_by_ratio() -> None:
    assert is_log(LOSS, [8.0, 0.2])
    assert not is_log(LOSS, [2.0, 0.5])
    assert not is_log(LOSS, [8.0, 0.0])
    assert not is_log(LEARNING_RATE, [1e-2, 1e-5])
