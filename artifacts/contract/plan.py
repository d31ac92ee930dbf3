"""The plan: a graph of stages, everything resolved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from artifacts.contract.codec import canonical_json, decode
from artifacts.contract.inputs import DataParams, ImageParams, ModelParams
from artifacts.contract.products import (
    GgufParams,
    MergeParams,
    PredictParams,
    PublishParams,
    QuantizeParams,
)
from artifacts.contract.training import PrepareParams, TrainParams
from artifacts.contract.words import Engine, StageKind

PLAN_VERSION = 1

PARAMS: dict[StageKind, type] = {
    StageKind.IMAGE: ImageParams,
    StageKind.DATA: DataParams,
    StageKind.MODEL: ModelParams,
    StageKind.ORIGINAL: ModelParams,
    StageKind.ADAPTER: ModelParams,
    StageKind.PREPARE: PrepareParams,
    StageKind.TRAIN: TrainParams,
    StageKind.MERGE: MergeParams,
    StageKind.QUANTIZE: QuantizeParams,
    StageKind.GGUF: GgufParams,
    StageKind.PREDICT: PredictParams,
    StageKind.PUBLISH: PublishParams,
}

Params = (
    ImageParams
    | DataParams
    | ModelParams
    | PrepareParams
    | TrainParams
    | MergeParams
    | QuantizeParams
    | GgufParams
    | PredictParams
    | PublishParams
)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One node: `inputs` names the artifacts it reads (`{"model": "models/<key>", …}`), `output` the one it
    makes. The artifact exists once `<output>/COMPLETE.json` does."""

    kind: StageKind
    key: str
    inputs: dict[str, str]
    output: str
    params: Any  # the kind's dataclass in PARAMS


def original_prefix(stage: StagePlan) -> str:
    """Where a rehearsal finds config, tokenizer and code of the model that its twin is made after, unless it
    reaches that model itself; an artifact of its own."""
    return f"{stage.output}/original"


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A value that the job left out, and what it was derived from."""

    field: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """job + cluster, everything resolved. Its digest (SHA-256 of the canonical JSON) names the run."""

    name: str
    cluster: str
    backend: Literal["local", "kubernetes"]
    store: str  # URI: file:///… or s3://…
    engine: Engine
    stages: list[StagePlan]
    job: dict[str, Any]  # the job as resolved, for people and the report
    derived: list[Derived] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)  # the cluster profile, for whoever starts pods
    version: int = PLAN_VERSION

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def run_id(self) -> str:
        return f"{self.name}-{self.digest[:8]}"

    def has(self, kind: StageKind | str) -> bool:
        return any(stage.kind == kind for stage in self.stages)

    def stage(self, kind: StageKind | str) -> StagePlan:
        return next(stage for stage in self.stages if stage.kind == kind)

    def to_json(self) -> bytes:
        return canonical_json(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Plan:
        """Raises ValueError or TypeError for what is no plan of this version."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not a plan: no JSON object")
        if data.get("version") != PLAN_VERSION:
            raise ValueError(f"plan version {data.get('version')} is not {PLAN_VERSION}: make the plan again")
        plan = decode(cls, data)
        stages = [
            dataclasses.replace(stage, params=decode(PARAMS[stage.kind], stage.params))
            for stage in plan.stages
        ]
        return dataclasses.replace(plan, stages=stages)
