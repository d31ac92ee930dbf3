"""Stage `train`: a model and its prepared tokens in, a trained model or adapter out."""

from __future__ import annotations

import dataclasses

from artifacts.contract import StageKind, StagePlan, TrainParams
from launcher.stages.keys import CodeDigest, stage, stage_key

#: What does not change the weights: how often they are saved, how many checkpoints stay, and what MFU is
#: computed from. Changing these goes on with the same training.
NOT_IN_KEY = ("save_every", "keep", "accelerator", "peak_flops_per_second")


def plan(params: TrainParams, model: StagePlan, prepare: StagePlan, code: CodeDigest) -> StagePlan:
    values = {name: value for name, value in dataclasses.asdict(params).items() if name not in NOT_IN_KEY}
    inputs = {"model": model.key, "prepare": prepare.key}
    key = stage_key(StageKind.TRAIN, code(StageKind.TRAIN), inputs, values)
    return stage(StageKind.TRAIN, key, {"model": model, "prepare": prepare}, params)
