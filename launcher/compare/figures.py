"""Figures side by side: training, time and memory, and what was made of the models."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.contract import StageKind
from launcher.compare.curves import tokens_per_epoch
from launcher.compare.runs import Run
from launcher.reporting import products, words
from launcher.reporting.timeline import stage_lines

_SPOKEN_OF = 0.01  # relative change from which on one is better or worse
_END_SHARE = 0.05  # of the logged steps: their mean is the loss at the end


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A value for each run, None where it has none, and how people read them."""

    group: Literal["Training", "Time and memory", "Products"]
    label: str
    values: list[float | str | None]
    texts: list[str]
    better: Literal["lower", "higher", ""] = ""

    def change(self, run: int) -> float | None:
        """Relative to the first run; None where there is none to speak of."""
        first, value = self.values[0], self.values[run]
        if run == 0 or not isinstance(first, int | float) or not isinstance(value, int | float):
            return None
        return value / first - 1 if first > 0 and value != first else None

    def change_text(self, run: int) -> str:
        change = self.change(run)
        if change is None or self.texts[run] == self.texts[0]:
            return ""
        if change >= 9:
            return f"× {change + 1:.3g}"
        return f"{change:+.1%}" if abs(change) < 0.1 else f"{change:+.0%}"

    def is_better(self, run: int) -> bool | None:
        change = self.change(run)
        if change is None or not self.better or abs(change) < _SPOKEN_OF:
            return None
        return (change < 0) == (self.better == "lower")


def figure_rows(runs: Sequence[Run]) -> list[FigureRow]:
    rows = [*_training(runs), *_time(runs), *_products(runs)]
    return [row for row in rows if any(value is not None for value in row.values)]


def _training(runs: Sequence[Run]) -> list[FigureRow]:
    def row(label: str, of: Callable[[Run], float | None], show: Any, better: Any = "") -> FigureRow:
        values = [of(run) for run in runs]
        texts = [show(value) for value in values]
        return FigureRow(group="Training", label=label, values=list(values), texts=texts, better=better)

    return [
        row("Training loss at the end", _end_loss, words.number, "lower"),
        row(
            "Evaluation loss, last",
            lambda run: next(reversed(_evaluations(run)), None),
            words.number,
            "lower",
        ),
        row("Evaluation loss, best", lambda run: min(_evaluations(run), default=None), words.number, "lower"),
        row("Steps", lambda run: _last(run, "step"), words.count),
        row("Sequences per step", _batch, words.count),
        row("Epochs", lambda run: _last(run, "epoch"), lambda value: f"{value:.3g}" if value else "–"),
        row("Supervised tokens learnt", _tokens, words.count),
    ]


def _time(runs: Sequence[Run]) -> list[FigureRow]:
    def row(
        label: str, values: Sequence[float | None], show: Callable[[float | None], str], better: Any = "lower"
    ) -> FigureRow:
        texts = [show(value) for value in values]
        return FigureRow(
            group="Time and memory", label=label, values=list(values), texts=texts, better=better
        )

    spent = [
        {
            line.name: line.seconds
            for line in stage_lines([s.kind.value for s in run.facts.plan.stages], run.facts.events)
            if line.bars
        }
        for run in runs
    ]
    stages = [kind.value for kind in StageKind if any(kind.value in each for each in spent)]
    hours = [
        each["train"] * run.training.world_size / 3600 if "train" in each and run.training else None
        for run, each in zip(runs, spent, strict=True)
    ]
    return [
        row("Tokens per second", [_median(run, "tokens_per_second") for run in runs], words.count, "higher"),
        row("Peak memory of one worker", [_peak(run) for run in runs], words.size),
        *(row(f"Stage {name}", [each.get(name) for each in spent], words.duration) for name in stages),
        row("Worker hours of training", hours, words.number),
    ]


def _products(runs: Sequence[Run]) -> list[FigureRow]:
    told = [
        {
            (figure.stage, figure.label): figure
            for figure in products.figures(run.facts.plan, run.facts.manifests)
        }
        for run in runs
    ]
    keys = list(dict.fromkeys(key for found in told for key in found))
    order = [kind.value for kind in StageKind]
    rows = []
    for stage, label in sorted(keys, key=lambda key: order.index(key[0])):
        found = [each.get((stage, label)) for each in told]
        rows.append(
            FigureRow(
                group="Products",
                label=f"{products.NAMES[stage]}: {label[0].lower() + label[1:]}",
                values=[figure.value if figure else None for figure in found],
                texts=[figure.text if figure else "–" for figure in found],
                better=next(figure.better for figure in found if figure),
            )
        )
    return rows


def _end_loss(run: Run) -> float | None:
    losses = [float(row["loss"]) for row in run.facts.steps if math.isfinite(row["loss"])]
    return statistics.fmean(losses[-max(1, round(_END_SHARE * len(losses))) :]) if losses else None


def _evaluations(run: Run) -> list[float]:
    losses = [float(row["eval_loss"]) for row in run.facts.evaluations]
    return [loss for loss in losses if math.isfinite(loss)]


def _last(run: Run, name: str) -> float | None:
    return run.facts.steps[-1].get(name) if run.facts.steps else None


def _batch(run: Run) -> float | None:
    return run.training.sequences_per_step if run.training else None


def _tokens(run: Run) -> float | None:
    epochs, tokens = _last(run, "epoch"), tokens_per_epoch(run)
    return epochs * tokens if epochs is not None and tokens else None


def _median(run: Run, name: str) -> float | None:
    values = [float(row[name]) for row in run.facts.steps if row.get(name)]
    return statistics.median(values) if values else None


def _peak(run: Run) -> float | None:
    return max(
        (row["peak_memory_bytes"] for row in run.facts.steps if row.get("peak_memory_bytes")), default=None
    )
