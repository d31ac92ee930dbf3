"""What a run left in the store, read for its report. Each part may be missing: a run that failed early, was
stopped, or has no test data still has a report."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from artifacts.contract import Plan, StageKind
from artifacts.events import events_prefix
from artifacts.manifest import Manifest, read_marker
from artifacts.segments import read_all
from artifacts.store import ObjectMissingError, Store
from launcher.checkpoints import training_prefix
from launcher.record import plan_key

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """`manifests` by stage kind, of the complete stages; `evaluations` are the rows with `eval_loss`;
    `predictions` the first rows of the predictions file."""

    run_id: str
    plan: Plan
    events: list[Row] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    steps: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    data: Row | None = None  # report.json of the data artifact
    prepared: Row | None = None  # statistics.json
    predictions: list[Row] = field(default_factory=list)
    scores: Row | None = None


PREDICTIONS_SHOWN = 300


def collect(store: Store, run_id: str, *, predictions_at_most: int | None = PREDICTIONS_SHOWN) -> RunFacts:
    """`predictions_at_most`: None for all. Raises ObjectMissingError where the store has no such run."""
    plan = Plan.from_json(store.read_bytes(plan_key(run_id)))
    outputs = {stage.kind.value: stage.output for stage in plan.stages}
    markers = {kind: read_marker(store, output) for kind, output in outputs.items()}
    manifests = {kind: marker for kind, marker in markers.items() if marker is not None}
    complete = {kind: outputs[kind] for kind in manifests}
    rows = _metrics(store, plan) if StageKind.TRAIN in outputs else []
    return RunFacts(
        run_id=run_id,
        plan=plan,
        events=sorted(read_all(store, events_prefix(run_id)), key=lambda row: float(row.get("time_s", 0))),
        manifests=manifests,
        steps=merged_steps([row for row in rows if row.get("loss") is not None]),
        evaluations=merged_steps([row for row in rows if row.get("eval_loss") is not None]),
        data=_json(store, complete.get("data"), "report.json"),
        prepared=_json(store, complete.get("prepare"), "statistics.json"),
        predictions=_predictions(store, complete.get("predict"), predictions_at_most),
        scores=_json(store, complete.get("predict"), "scores.json"),
    )


def merged_steps(rows: list[Row]) -> list[Row]:
    """One row a step, in order: of several attempts at a step the last one counts."""
    newest: dict[float, Row] = {}
    for row in rows:
        known = newest.get(row["step"])
        if known is None or row.get("attempt", 0) >= known.get("attempt", 0):
            newest[row["step"]] = row
    return [newest[step] for step in sorted(newest)]


def _metrics(store: Store, plan: Plan) -> list[Row]:
    stage = plan.stage(StageKind.TRAIN)
    try:
        lines = store.read_bytes(f"{stage.output}/metrics.jsonl").splitlines()
        return [json.loads(line) for line in lines]
    except ObjectMissingError:  # training has not ended
        return list(read_all(store, f"{training_prefix(plan)}/metrics"))


def _json(store: Store, prefix: str | None, name: str) -> Row | None:
    if prefix is None:
        return None
    try:
        value = json.loads(store.read_bytes(f"{prefix}/{name}"))
    except (ObjectMissingError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _predictions(store: Store, prefix: str | None, at_most: int | None) -> list[Row]:
    if prefix is None:
        return []
    with store.open_read(f"{prefix}/predictions.jsonl") as lines:
        return [json.loads(line) for line in itertools.islice(lines, at_most)]
