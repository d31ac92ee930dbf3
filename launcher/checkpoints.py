"""Checkpoints of a training: `train/<key>/checkpoint-<step>-<attempt>/`, whole once the marker is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from artifacts.contract import Plan, StageKind
from artifacts.manifest import MARKER, read_marker, verify
from artifacts.store import Store

#: partial: no marker (a save that was cut off, or one going on); damaged: a byte differs from its manifest.
CheckpointState = Literal["complete", "partial", "damaged"]

_NAME = re.compile(r"checkpoint-(?P<step>\d+)-(?P<attempt>\d+)")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    prefix: str
    step: int
    attempt: int
    state: CheckpointState
    size_bytes: int
    problems: tuple[str, ...] = ()  # of a damaged one, `path: what is wrong`


def training_prefix(plan: Plan) -> str:
    """`train/<key>`: checkpoints, metrics and the final artifact lie below it."""
    return f"{StageKind.TRAIN.folder}/{plan.stage(StageKind.TRAIN).key}"


def list_checkpoints(store: Store, prefix: str, *, verified: bool = False) -> list[Checkpoint]:
    """The checkpoints below `train/<key>`, oldest first. With `verified` every byte of the complete ones is
    re-read, which costs as much as reading them."""
    sizes: dict[str, int] = {}
    for info in store.list(prefix):
        name = info.key.removeprefix(f"{prefix}/").split("/")[0]
        if _NAME.fullmatch(name):
            sizes[name] = sizes.get(name, 0) + info.size_bytes
    found = [_look_at(store, f"{prefix}/{name}", size, verified) for name, size in sizes.items()]
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))


def newest_verified(store: Store, prefix: str) -> Checkpoint | None:
    """The checkpoint that a resumed training starts from, if there is one."""
    for checkpoint in reversed(list_checkpoints(store, prefix)):
        if checkpoint.state == "complete" and not verify(store, checkpoint.prefix):
            return checkpoint
    return None


def newest_step(store: Store, prefix: str) -> int:
    """The step of the newest committed checkpoint, -1 where there is none. Reads no checkpoint's bytes."""
    return max((int(match["step"]) for match in _committed(store, prefix)), default=-1)


def _committed(store: Store, prefix: str) -> Iterator[re.Match[str]]:
    for info in store.list(prefix):
        name, _, rest = info.key.removeprefix(f"{prefix}/").partition("/")
        if rest == MARKER and (match := _NAME.fullmatch(name)):
            yield match


def _look_at(store: Store, prefix: str, size_bytes: int, verified: bool) -> Checkpoint:
    match = _NAME.fullmatch(prefix.rsplit("/", 1)[1])
    assert match is not None
    state: CheckpointState = "complete" if read_marker(store, prefix) is not None else "partial"
    problems = tuple(verify(store, prefix)) if verified and state == "complete" else ()
    return Checkpoint(
        prefix=prefix,
        step=int(match["step"]),
        attempt=int(match["attempt"]),
        state="damaged" if problems else state,
        size_bytes=size_bytes,
        problems=problems,
    )
