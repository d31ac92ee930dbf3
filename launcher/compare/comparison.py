"""The whole comparison, decided from what the runs left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.contract import StageKind
from launcher.compare import answers, curves, origins, scores
from launcher.compare.answers import Question
from launcher.compare.curves import Axis
from launcher.compare.figures import FigureRow, figure_rows
from launcher.compare.origins import Origin, Parting
from launcher.compare.runs import Run
from launcher.compare.scores import Scores
from launcher.compare.settings import Setting, settings, shown
from launcher.reporting.view import outcome, subtitle
from launcher.spec.words import listed

_SETTINGS_TOLD = 4  # in the summary


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`axis`: on which curves compare fairly, and `axis_reason` why, where it is not the step."""

    runs: list[Run]
    summary: list[str]
    scores: Scores
    figures: list[FigureRow]
    settings: list[Setting]
    origins: list[Origin]
    partings: list[Parting]
    questions: list[Question]
    axis: Axis
    axis_reason: str

    @property
    def several_clusters(self) -> bool:
        return len({run.cluster for run in self.runs}) > 1


def compare(runs: Sequence[Run]) -> Comparison:
    """`runs`: at least two (`runs.lettered`)."""
    found = answers.questions(runs)
    axis, reason = curves.fair_axis(runs)
    compared, made_of, parted = settings(runs), origins.origins(runs), origins.partings(runs)
    return Comparison(
        runs=list(runs),
        summary=summary(compared, made_of, parted),
        scores=scores.scores(runs, found),
        figures=figure_rows(runs),
        settings=compared,
        origins=made_of,
        partings=parted,
        questions=found,
        axis=axis,
        axis_reason=reason,
    )


def summary(compared: Sequence[Setting], made_of: Sequence[Origin], parted: Sequence[Parting]) -> list[str]:
    """What is the same and what is not, in a sentence each."""
    inputs = [row for row in made_of if row.is_input]
    data = [row for row in inputs if row.kind == "data"]
    same = [row.label for row in inputs if row.same]
    if data and all(row.same for row in data):
        same = ["data", *(row.label for row in inputs if row.same and row.kind != "data")]
    told = []
    if same:
        told.append(f"The same {listed(same, 'and')}.")
    if other := [row.label for row in inputs if not row.same]:
        told.append(f"Another {listed(other, 'and')}.")
    differing = [row for row in compared if row.differs]
    chosen = [row for row in differing if not row.is_derived] or differing
    between = " → " if differing and len(differing[0].values) == 2 else " / "
    told += [
        f"{row.field}: {between.join(shown(value) for value in row.values)}."
        for row in chosen[:_SETTINGS_TOLD]
    ]
    if rest := len(differing) - len(chosen[:_SETTINGS_TOLD]):
        told.append(f"{rest} more setting{'s differ' if rest > 1 else ' differs'}.")
    if not differing:
        told.append("No setting differs.")
    if changed := [row.stage for row in parted if row.code_matters]:
        told.append(f"Other code or libraries made {listed(changed, 'and')}.")
    return told


def to_json(made: Comparison, *, everything: bool = False) -> dict[str, Any]:
    """For scripts; lists have an entry for each run. Without `everything` only those settings and questions
    that differ."""
    return {
        "runs": [_run_json(run) for run in made.runs],
        "summary": made.summary,
        "scores": {
            **vars(made.scores),
            "rows": [_score_json(row) for row in made.scores.rows],
        },
        "figures": [_without(row, "texts") for row in made.figures],
        "settings": [dataclasses.asdict(row) for row in made.settings if everything or row.differs],
        "origins": [{**dataclasses.asdict(row), "same": row.same} for row in made.origins],
        "stages": [_without(row, "whys") for row in made.partings],
        "curves": {
            "fair_axis": made.axis,
            "reason": made.axis_reason,
            **{
                metric.name: [curves.points(run, metric, made.axis) for run in made.runs]
                for metric in curves.METRICS
            },
        },
        "answers": {
            "questions": len(made.questions),
            **answers.counts(made.questions, made.runs),
            "rows": [
                {**dataclasses.asdict(row), "right": row.right}
                for row in made.questions
                if everything or row.changed
            ],
        },
    }


def _run_json(run: Run) -> dict[str, Any]:
    state = outcome(run.facts)
    return {
        "letter": run.letter,
        "run": run.run_id,
        "cluster": run.cluster,
        "state": state["state"],
        "text": state["text"],
        "about": subtitle(run.facts),
        "stages": [stage.kind.value for stage in run.facts.plan.stages],
        "complete": [kind.value for kind in StageKind if kind in run.facts.manifests],
    }


def _score_json(row: scores.Score) -> dict[str, Any]:
    runs = range(len(row.values))
    verdicts = {
        str(run): {**dataclasses.asdict(verdict), "is_difference": verdict.is_difference}
        for run, verdict in row.verdicts.items()
    }
    return {**dataclasses.asdict(row), "verdicts": verdicts, "gains": [row.gain(run) for run in runs]}


def _without(row: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(row).items() if name not in names}
