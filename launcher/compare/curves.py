"""Curves over each other: by step, epoch, supervised tokens or time, whichever compares fairly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.contract import StageKind
from launcher.compare.runs import Run, contents

Axis = Literal["step", "epoch", "supervised tokens", "minutes"]
AXES: tuple[Axis, ...] = ("step", "epoch", "supervised tokens", "minutes")
Point = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A figure of a row of a training's metrics. `last`: of several rows the last one stands for them, else
    their mean."""

    name: str
    title: str
    from_zero: bool = False
    last: bool = False
    may_be_log: bool = False


#: From this ratio of the highest to the lowest on, losses are drawn on a logarithmic axis: else the start
#: flattens the end, where runs differ.
_LOG_FROM = 10.0

METRICS = (
    Metric("loss", "Loss", may_be_log=True),
    Metric("eval_loss", "Evaluation loss", last=True, may_be_log=True),
    Metric("learning_rate", "Learning rate", from_zero=True),
    Metric("tokens_per_second", "Tokens per second", from_zero=True),
)


def fair_axis(runs: Sequence[Run]) -> tuple[Axis, str]:
    """The axis on which the runs have learnt from equally much at equal places, and why it is that one."""
    trained = [run for run in runs if run.training is not None]
    batches = {run.training.sequences_per_step for run in trained if run.training}
    if len(set(contents(trained, StageKind.PREPARE))) > 1:
        if all(tokens_per_epoch(run) for run in trained):
            return (
                "supervised tokens",
                "the prepared data differ: at equal places equally many tokens were learnt",
            )
        return "step", ""
    if len(batches) > 1:
        told = " and ".join(str(size) for size in sorted(batches))
        return "epoch", f"a step is {told} sequences: at equal places the same data was learnt"
    return "step", ""


def tokens_per_epoch(run: Run) -> int | None:
    """Supervised tokens of the training split."""
    train = ((run.facts.prepared or {}).get("splits") or {}).get("train") or {}
    return train.get("supervised_tokens") or None


def axes(runs: Sequence[Run]) -> list[Axis]:
    """Those that at least one run's rows have values for."""
    return [axis for axis in AXES if any(points(run, METRICS[0], axis) for run in runs)]


def points(run: Run, metric: Metric, axis: Axis) -> list[Point]:
    """(place on the axis, value), in order."""
    rows = run.facts.evaluations if metric.name == "eval_loss" else run.facts.steps
    rows = [row for row in rows if row.get(metric.name) is not None]
    return [
        (x, float(row[metric.name]))
        for x, row in zip(_places(run, rows, axis), rows, strict=True)
        if x is not None
    ]


def _places(run: Run, rows: Sequence[dict[str, Any]], axis: Axis) -> list[float | None]:
    if axis == "minutes":
        spent = _minutes(run.facts.steps)
        return [spent.get(row["step"]) for row in rows]
    if axis == "step":
        return [float(row["step"]) for row in rows]
    scale = 1 if axis == "epoch" else tokens_per_epoch(run)
    return [row["epoch"] * scale if scale and row.get("epoch") is not None else None for row in rows]


def _minutes(rows: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Time spent up to each step, evaluation and saving included, pauses between attempts not."""
    spent, total = dict[int, float](), 0.0
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.get("attempt") == row.get("attempt"):
            total += max(0.0, float(row.get("time_s") or 0) - float(before.get("time_s") or 0)) / 60
        spent[row["step"]] = total
    return spent


def is_log(metric: Metric, values: Sequence[float]) -> bool:
    """Whether the metric's axis is logarithmic, for these values of all runs."""
    known = [value for value in values if math.isfinite(value)]
    return metric.may_be_log and bool(known) and 0 < _LOG_FROM * min(known) <= max(known)


def in_parts(found: Sequence[Point], end: float, parts: int, *, last: bool = False) -> list[float | None]:
    """The mean value in each of so many equal parts of [0, end], or the last; None where no point lies."""
    buckets: list[list[float]] = [[] for _ in range(parts)]
    for x, y in found:
        buckets[min(parts - 1, max(0, int(x / end * parts - 1e-9)) if end else 0)].append(y)
    return [(each[-1] if last else sum(each) / len(each)) if each else None for each in buckets]
