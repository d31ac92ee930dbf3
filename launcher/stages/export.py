"""What comes after training: `merge` makes one model of base and adapter, `predict` answers the test file."""

from __future__ import annotations

import dataclasses

from artifacts.contract import MergeParams, PredictParams, StageKind, StagePlan
from launcher.stages import data as data_stage
from launcher.stages.keys import CodeDigest, stage, stage_key


def merge(params: MergeParams, model: StagePlan, train: StagePlan, code: CodeDigest) -> StagePlan:
    inputs = {"model": model.key, "train": train.key}
    key = stage_key(StageKind.MERGE, code(StageKind.MERGE), inputs, dataclasses.asdict(params))
    return stage(StageKind.MERGE, key, {"model": model, "train": train}, params)


def predict(
    params: PredictParams, data: StagePlan, model: StagePlan, tuned: StagePlan, code: CodeDigest
) -> StagePlan:
    """`tuned` is the merge stage, or the train stage where all weights were trained and nothing is merged."""
    inputs = {"data": data_stage.content(data.params, code, ["test"]), "model": model.key, "tuned": tuned.key}
    key = stage_key(StageKind.PREDICT, code(StageKind.PREDICT), inputs, dataclasses.asdict(params))
    return stage(StageKind.PREDICT, key, {"data": data, "model": model, "tuned": tuned}, params)
