"""Stage `prepare`: conversations and a tokenizer in, packed token sequences out."""

from __future__ import annotations

import dataclasses

from artifacts.contract import PrepareParams, StageKind, StagePlan
from launcher.stages import data as data_stage
from launcher.stages.keys import CodeDigest, stage, stage_key

#: The test split is answered, not tokenized here.
SPLITS = ("train", "eval")


def plan(params: PrepareParams, data: StagePlan, model: StagePlan, code: CodeDigest) -> StagePlan:
    inputs = {"data": data_stage.content(data.params, code, SPLITS), "model": model.key}
    key = stage_key(StageKind.PREPARE, code(StageKind.PREPARE), inputs, dataclasses.asdict(params))
    return stage(StageKind.PREPARE, key, {"data": data, "model": model}, params)
