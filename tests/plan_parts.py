"""Parts of plans with settled values, for tests that are about something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from artifacts.contract import Plan, StageKind, StagePlan, TrainParams
from artifacts.store import Store

_TRAIN = TrainParams(
    method="full",
    lora=None,
    epochs=None,
    steps=4,
    learning_rate=1e-4,
    schedule="constant",
    warmup_steps=0,
    warmup_share=None,
    weight_decay=0.0,
    max_grad_norm=1.0,
    micro_batch_size=1,
    gradient_accumulation_steps=1,
    world_size=1,
    max_length=64,
    precision="fp32",
    gradient_checkpointing=False,
    seed=0,
    evaluate_every=None,
    save_every=None,
    log_every_steps=1,
    keep=3,
    strategy="ddp",
    offload="none",
)


def train_params(**changes: Any) -> TrainParams:
    """Four steps of full training on one CPU worker, but for `changes`."""
    return dataclasses.replace(_TRAIN, **changes)


def stage(kind: StageKind, params: object, key: str = "key", **inputs: StagePlan | str) -> StagePlan:
    """A stage whose artifact lies where its kind's do. `inputs` are stages, or prefixes in the store."""
    prefixes = {name: made if isinstance(made, str) else made.output for name, made in inputs.items()}
    output = f"{kind.folder}/{key}" + ("/final" if kind is StageKind.TRAIN else "")
    return StagePlan(kind=kind, key=key, inputs=prefixes, output=output, params=params)


def plan(store: Store, stages: Sequence[StagePlan], name: str = "bot", **more: Any) -> Plan:
    """A plan of these stages on this machine."""
    fields: dict[str, Any] = {"engine": "torchrun", "job": {"name": name}, **more}
    return Plan(name=name, cluster="local", backend="local", store=store.uri, stages=list(stages), **fields)
