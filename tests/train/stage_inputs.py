"""Stores and plans for the stages data, model and prepare, without the launcher."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.contract import DataParams, Method, ModelParams, PrepareParams, StageKind, TwinParams
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from tests import plan_parts
from train.stage import StageContext

TWIN = TwinParams(hidden_size=32, intermediate_size=64, vocabulary_size=400)


def put_data(store: LocalStore, splits: Mapping[str, Sequence[list[dict[str, Any]]]]) -> None:
    """The data stage's artifact `data/key`: one shard a split."""
    artifact = ArtifactWriter(store, "data/key")
    for split, conversations in splits.items():
        lines = [json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in conversations]
        artifact.write_bytes(f"{split}-00000.jsonl", "".join(lines).encode())
    artifact.commit()


def stage_context(
    store: LocalStore,
    kind: StageKind,
    work: Path,
    *,
    model: ModelParams | None = None,
    prepare: PrepareParams | None = None,
    on_error: str = "stop",
    method: Method = "full",
) -> StageContext:
    model = model or ModelParams(source="twin", twin=TWIN)
    prepare = prepare or PrepareParams(max_length=128, packing=True)
    plan = plan_parts.plan(
        store,
        [
            plan_parts.stage(StageKind.DATA, DataParams(splits={}, on_error=on_error)),
            plan_parts.stage(StageKind.MODEL, model, data="data/key"),
            plan_parts.stage(StageKind.PREPARE, prepare, data="data/key", model="models/key"),
            plan_parts.stage(
                StageKind.TRAIN,
                plan_parts.train_params(method=method),
                model="models/key",
                prepare="prepared/key",
            ),
        ],
    )
    return StageContext(plan, "run", plan.stage(kind), store, work, Events(store, "run", kind))
