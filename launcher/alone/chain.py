"""The stages of a command: what is given as the first ones, then as few as lead to what is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field

from artifacts.contract import (
    GgufParams,
    MergeParams,
    Plan,
    PredictParams,
    PrepareParams,
    QuantizeParams,
    StageKind,
    StagePlan,
)
from launcher.errors import Problem, UserError
from launcher.stages import export, prepare
from launcher.stages.keys import CodeDigest


@dataclass
class Chain:
    """The stages so far, each after those it reads. Of `run`, where there is one, whatever it has made of the
    same is taken instead of making it again, whatever code has changed since."""

    code: CodeDigest
    run: Plan | None = None
    stages: list[StagePlan] = field(default_factory=list)

    def add(self, stage: StagePlan) -> StagePlan:
        """The stage, or the one of the run that stands for it."""
        if self.run is not None and self.run.has(stage.kind):
            there = self.run.stage(stage.kind)
            if (there.params, there.inputs) == (stage.params, stage.inputs):
                stage = there
        if all(stage.kind != known.kind for known in self.stages):
            self.stages.append(stage)
        return stage


@dataclass(frozen=True, kw_only=True)
class Start:
    """What there is to begin with. `trained`: an adapter, or weights that go over the model's; `merged`: the
    whole model of both. Without either the model itself is whole."""

    model: StagePlan
    trained: StagePlan | None = None
    merged: StagePlan | None = None
    data: StagePlan | None = None
    prepare: StagePlan | None = None
    original: StagePlan | None = None  # of a quantized base model, for the merge

    @property
    def answering(self) -> StagePlan:
        """The stage whose model answers: the whole one, else what was trained."""
        return self.merged or self.trained or self.model


def of_run(run: Plan, complete: Collection[StageKind]) -> Start:
    """What a run has made. Raises UserError where it has not come that far."""
    found = {stage.kind: stage for stage in run.stages}
    missing = [
        kind
        for kind in (StageKind.MODEL, StageKind.TRAIN, StageKind.ADAPTER, StageKind.MERGE)
        if kind in found and kind not in complete
    ]
    if StageKind.MODEL not in found or missing:
        why = f"its stage {missing[0]} is not complete" if missing else "it has no model"
        way_out = f"slipway resume {run.run_id}" if missing else ""
        raise UserError(Problem(where="", what=f"run {run.run_id}", why=why, way_out=way_out))
    return Start(
        model=found[StageKind.MODEL],
        trained=found.get(StageKind.TRAIN) or found.get(StageKind.ADAPTER),
        merged=found.get(StageKind.MERGE),
        data=found.get(StageKind.DATA),
        prepare=found.get(StageKind.PREPARE),
        original=found.get(StageKind.ORIGINAL),
    )


def whole(chain: Chain, start: Start, params: MergeParams) -> StagePlan:
    """The stage with the whole model; adds a merge where nobody has merged yet."""
    if start.merged is not None:
        return chain.add(start.merged)
    if start.trained is None:
        return chain.add(start.model)
    if start.original is not None:
        chain.add(start.original)
    base = start.original or start.model
    return chain.add(export.merge(params, chain.add(base), chain.add(start.trained), chain.code))


def quantize(chain: Chain, params: QuantizeParams, model: StagePlan, prepared: StagePlan) -> StagePlan:
    return chain.add(export.quantize(params, model, chain.add(prepared), chain.code))


def prepared(chain: Chain, params: PrepareParams, data: StagePlan, model: StagePlan) -> StagePlan:
    return chain.add(prepare.plan(params, chain.add(data), model, chain.code))


def gguf(chain: Chain, params: GgufParams, model: StagePlan) -> StagePlan:
    return chain.add(export.gguf(params, model, chain.code))


def predict(chain: Chain, params: PredictParams, data: StagePlan, start: Start) -> StagePlan:
    """The answers. A model beside which there is nothing answers alone."""
    answering = start.answering
    if answering is start.model:
        params = dataclasses.replace(params, base=False)
    inputs = chain.add(data), chain.add(start.model), chain.add(answering)
    return chain.add(export.predict(params, *inputs, chain.code))


def with_ancestors(chain: Chain, complete: Collection[StageKind]) -> list[StagePlan]:
    """The chain's stages, those of its run before them that they were made from: what is complete costs
    nothing, and the report tells of it."""
    if chain.run is None:
        return chain.stages
    kinds = {stage.kind for stage in chain.stages}
    wanted = {prefix for stage in chain.stages for prefix in stage.inputs.values()}
    before: list[StagePlan] = []
    for stage in reversed(chain.run.stages):
        if stage.output in wanted and stage.kind not in kinds and stage.kind in complete:
            before.insert(0, stage)
            wanted |= set(stage.inputs.values())
    order = {stage.output: index for index, stage in enumerate(chain.run.stages)}
    made = [stage for stage in chain.stages if stage.output not in order]
    taken = [stage for stage in chain.stages if stage.output in order]
    return sorted([*before, *taken], key=lambda stage: order[stage.output]) + made
