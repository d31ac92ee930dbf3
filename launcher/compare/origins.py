"""What the runs were made from: data, base model, libraries; and at which stage their ways part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.contract import Plan, StageKind, StagePlan
from launcher.compare.runs import Run, contents
from launcher.compare.settings import flattened
from launcher.names import short_key
from launcher.reporting.data_view import split_order
from launcher.reporting.provenance import MODELS
from launcher.spec.words import listed

_FIELDS_NAMED = 3
Why = Literal["", "parameters", "inputs", "code"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One thing that a run was made from, a value for each run, None where it has none. `same` compares by
    digest where there is one, `values` are for people."""

    kind: Literal["data", "model", "surroundings"]
    label: str
    values: list[str | None]
    digests: list[str | None]

    @property
    def same(self) -> bool:
        return len(set(self.digests)) == 1

    @property
    def is_input(self) -> bool:
        """Data or a model, and not what carried the run out."""
        return self.kind != "surroundings"


@dataclass(frozen=True, kw_only=True)
class Parting:
    """How a stage of another run came to a key of its own: `keys` of all runs, `reasons` of all but the
    first (empty: the same artifact). `same_files`: under other keys the same bytes."""

    stage: str
    keys: list[str | None]
    reasons: list[str]
    whys: list[Why]
    same_files: list[bool]

    @property
    def code_matters(self) -> bool:
        """Whether other code or libraries alone made other files."""
        return any(why == "code" and not same for why, same in zip(self.whys, self.same_files, strict=True))

    def told(self, other: int) -> str:
        """Of one of the runs but the first, counted from 0."""
        reason = self.reasons[other]
        if not reason:
            return "the same"
        return f"{reason}, the same files" if self.same_files[other] else reason


def origins(runs: Sequence[Run]) -> list[Origin]:
    plans = [run.facts.plan for run in runs]
    rows = [_data(split, plans) for split in _splits(plans)]
    rows += [_model(kind, runs) for kind in MODELS if any(plan.has(kind) for plan in plans)]
    places = [f"{run.cluster}, engine {run.facts.plan.engine}" for run in runs]
    rows.append(Origin(kind="surroundings", label="cluster", values=list(places), digests=list(places)))
    versions = [_versions(run) for run in runs]
    for package in sorted({name for found in versions for name in found}):
        values = [found.get(package) for found in versions]
        rows.append(Origin(kind="surroundings", label=package, values=values, digests=values))
    return rows


def partings(runs: Sequence[Run]) -> list[Parting]:
    """A row for each kind of stage that a run has, in the order of the stages."""
    plans = [run.facts.plan for run in runs]
    rows = []
    for kind in StageKind:
        stages = [plan.stage(kind) if plan.has(kind) else None for plan in plans]
        if any(stages):
            files = contents(runs, kind)
            found = [
                _parting(stages[0], stage, {made.output: made.kind.value for made in plan.stages})
                for stage, plan in zip(stages[1:], plans[1:], strict=True)
            ]
            rows.append(
                Parting(
                    stage=kind.value,
                    keys=[short_key(stage.key) if stage else None for stage in stages],
                    reasons=[reason for reason, _ in found],
                    whys=[why for _, why in found],
                    same_files=[content == files[0] is not None for content in files[1:]],
                )
            )
    return rows


def _parting(first: StagePlan | None, other: StagePlan | None, makers: Mapping[str, str]) -> tuple[str, Why]:
    """`makers`: which stage makes what `other` reads, by its prefix in the store."""
    if first is None or other is None:
        return ("" if first is other else "only in one"), ""
    if first.key == other.key:
        return "", ""
    fields = _changed(first.params, other.params)
    if fields:
        named = ", ".join(fields[:_FIELDS_NAMED])
        rest = len(fields) - _FIELDS_NAMED
        return f"other {named}" + (f" and {rest} more" if rest > 0 else ""), "parameters"
    read = {name: made for name, made in other.inputs.items() if first.inputs.get(name) != made}
    if read:
        inputs = dict.fromkeys(makers.get(made, name) for name, made in read.items())
        return f"from another {listed(list(inputs), 'and')}", "inputs"
    return "other code or libraries", "code"


def _changed(first: Any, other: Any) -> list[str]:
    values = [flattened(dataclasses.asdict(params)) for params in (first, other)]
    names = dict.fromkeys(name for found in values for name in found)
    return [name for name in names if values[0].get(name) != values[1].get(name)]


def _splits(plans: Sequence[Plan]) -> list[str]:
    params = [plan.stage(StageKind.DATA).params for plan in plans if plan.has(StageKind.DATA)]
    return sorted({split for found in params for split in found.splits}, key=split_order)


def _data(split: str, plans: Sequence[Plan]) -> Origin:
    files = [
        plan.stage(StageKind.DATA).params.splits.get(split, []) if plan.has(StageKind.DATA) else []
        for plan in plans
    ]
    names = [", ".join(file.path.rpartition("/")[2] for file in found) or None for found in files]
    digests = [
        " ".join(f"{file.sha256}×{file.weight:g}≤{file.limit_records}" for file in found) or None
        for found in files
    ]
    if len(set(digests)) > 1:  # names alone would not tell them apart
        names = [
            f"{name} ({found[0].sha256[:8]})" if name and len(found) == 1 else name
            for name, found in zip(names, files, strict=True)
        ]
    return Origin(kind="data", label=f"{split} data", values=names, digests=digests)


def _model(kind: StageKind, runs: Sequence[Run]) -> Origin:
    values = list[str | None]()
    for plan in (run.facts.plan for run in runs):
        stage = plan.stage(kind) if plan.has(kind) else None
        params = stage.params if stage else None
        if params is None:
            values.append(None)
        elif params.twin:
            values.append(f"tiny {params.twin.architecture} twin ({short_key(stage.key)})" if stage else None)
        else:
            pin = (params.revision or params.sha256 or "")[:8]
            name = str(params.location or params.source).rstrip("/").rpartition("/")[2]
            values.append(f"{name} ({pin})" if pin else name)
    return Origin(kind="model", label=MODELS[kind], values=values, digests=contents(runs, kind))


def _versions(run: Run) -> dict[str, str]:
    """Of the libraries, as the training recorded them."""
    train = run.facts.manifests.get("train")
    recorded = train.facts.get("versions") if train else None
    return (
        {str(name): str(version) for name, version in recorded.items()} if isinstance(recorded, dict) else {}
    )
