"""What comes after training: one model of base and adapter, smaller forms of it, answers, a publication."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from artifacts.contract import (
    GgufParams,
    MergeParams,
    Params,
    PredictParams,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
)
from launcher.stages import data as data_stage
from launcher.stages.keys import CodeDigest, stage, stage_key


def merge(params: MergeParams, model: StagePlan, train: StagePlan, code: CodeDigest) -> StagePlan:
    """`train` is the train stage, or the adapter stage of one that was trained elsewhere."""
    return _planned(StageKind.MERGE, params, {"model": model, "train": train}, code)


def quantize(params: QuantizeParams, model: StagePlan, prepare: StagePlan, code: CodeDigest) -> StagePlan:
    """`prepare` holds what calibrates and what the perplexity is measured on."""
    return _planned(StageKind.QUANTIZE, params, {"model": model, "prepare": prepare}, code)


def gguf(params: GgufParams, model: StagePlan, code: CodeDigest) -> StagePlan:
    return _planned(StageKind.GGUF, params, {"model": model}, code)


def predict(
    params: PredictParams, data: StagePlan, model: StagePlan, tuned: StagePlan, code: CodeDigest
) -> StagePlan:
    """`tuned` is the merge stage, or the train stage where all weights were trained and nothing is merged."""
    digests = {"data": data_stage.content(data.params, code, ["test"])}
    return _planned(StageKind.PREDICT, params, {"data": data, "model": model, "tuned": tuned}, code, digests)


def publish(params: PublishParams, inputs: Mapping[str, StagePlan], code: CodeDigest) -> StagePlan:
    """`inputs`: the products by name, and `data`, `train`, `predict` for what the card tells."""
    return _planned(StageKind.PUBLISH, params, inputs, code)


def _planned(
    kind: StageKind,
    params: Params,
    inputs: Mapping[str, StagePlan],
    code: CodeDigest,
    digests: Mapping[str, str] | None = None,
) -> StagePlan:
    """`digests` stand for the keys of inputs of which only a part is read."""
    read = {name: source.key for name, source in inputs.items()} | dict(digests or {})
    key = stage_key(kind, code(kind), read, dataclasses.asdict(params))
    return stage(kind, key, inputs, params)
