"""Checkpoints of a training: `train/<key>/checkpoint-<step>-<attempt>/`, whole once the marker is there.

Which one a training starts from is decided by `train`, which verifies every byte first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from artifacts.contract import Plan, StageKind
from artifacts.manifest import MARKER
from artifacts.store import Store

#: partial: no marker: a save that was cut off, or one that goes on.
CheckpointState = Literal["complete", "partial"]

_NAME = re.compile(r"checkpoint-\d+-\d+")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    prefix: str
    step: int
    attempt: int
    state: CheckpointState
    size_bytes: int


def training_prefix(plan: Plan) -> str:
    """`train/<key>`: checkpoints, metrics and the final artifact lie below it."""
    return f"{StageKind.TRAIN.folder}/{plan.stage(StageKind.TRAIN).key}"


def of_plan(store: Store, plan: Plan) -> list[Checkpoint]:
    """The checkpoints of the plan's training, oldest first; none where it trains nothing."""
    return list_checkpoints(store, training_prefix(plan)) if plan.has(StageKind.TRAIN) else []


def list_checkpoints(store: Store, prefix: str) -> list[Checkpoint]:
    """The checkpoints below `train/<key>`, oldest first."""
    sizes: dict[str, int] = {}
    complete = set()
    for info in store.list(prefix):
        name, _, rest = info.key.removeprefix(f"{prefix}/").partition("/")
        if _NAME.fullmatch(name):
            sizes[name] = sizes.get(name, 0) + info.size_bytes
            complete |= {name} if rest == MARKER else set()
    found = []
    for name, size in sizes.items():
        step, attempt = map(int, name.split("-")[1:])
        found.append(
            Checkpoint(
                prefix=f"{prefix}/{name}",
                step=step,
                attempt=attempt,
                state="complete" if name in complete else "partial",
                size_bytes=size,
            )
        )
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))


def newest_step(store: Store, prefix: str) -> int:
    """The step of the newest complete checkpoint, -1 where there is none."""
    complete = (item.step for item in list_checkpoints(store, prefix) if item.state == "complete")
    return max(complete, default=-1)
