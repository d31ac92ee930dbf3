"""Stage `train`: a model and its prepared tokens in, a trained model or adapter out."""

from __future__ import annotations

import dataclasses
from typing import Any

from artifacts.contract import StageKind, StagePlan, TrainParams
from launcher.stages.keys import CodeDigest, stage, stage_key

#: What does not change the weights, but for rounding: how often they are saved, how many checkpoints stay,
#: what MFU is computed from, what is computed again to save memory, and how an optimizer step's sequences are
#: dealt to workers and passes. Changing these goes on with the same training.
NOT_IN_KEY = (
    "save_every",
    "keep",
    "accelerator",
    "peak_flops_per_second",
    "gradient_checkpointing",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "world_size",
)


def plan(params: TrainParams, model: StagePlan, prepare: StagePlan, code: CodeDigest) -> StagePlan:
    inputs = {"model": model.key, "prepare": prepare.key}
    key = stage_key(StageKind.TRAIN, code(StageKind.TRAIN), inputs, identity(params))
    return stage(StageKind.TRAIN, key, {"model": model, "prepare": prepare}, params)


def identity(params: TrainParams) -> dict[str, Any]:
    """What makes it this training and no other. One worker needs no strategy: `single` is ddp of one."""
    values = {name: value for name, value in dataclasses.asdict(params).items() if name not in NOT_IN_KEY}
    strategy = "ddp" if params.strategy == "single" else params.strategy
    return values | {"strategy": strategy, "sequences_per_step": params.sequences_per_step}
