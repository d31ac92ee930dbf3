"""The merge stage, run on folders."""

from __future__ import annotations

import contextlib
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from artifacts.contract import MergeParams, ModelParams, StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import Manifest, local_folder, verify, write_marker
from tests.plan_parts import plan, stage
from train import merge
from train.stage import StageContext

SHARD_BYTES = 40_000


def merged(
    tmp_path: Path,
    base: Path,
    trained: Path,
    *,
    measured: bool = False,
    max_drift: float = 0.05,
    model: ModelParams | None = None,
) -> Path:
    """Run the stage on a model and an adapter (or trained weights) of no training of ours; the folder that it
    made. The drift is `measured` where a test is about it: that takes a loaded model."""
    store = LocalStore(tmp_path / "store")
    for prefix, folder in {"models/m": base, "adapters/a": trained}.items():
        write_marker(store, prefix, Manifest(files=[], location=folder.absolute().as_uri()))
    stages = [
        stage(StageKind.MODEL, model or ModelParams(source="folder", location=str(base)), "m"),
        stage(
            StageKind.MERGE,
            MergeParams(max_shard_size_bytes=SHARD_BYTES, max_drift=max_drift),
            "k",
            model="models/m",
            train="adapters/a",
        ),
    ]
    events = Events(store, "run", "merge")
    measure = contextlib.nullcontext() if measured else patch.object(merge, "drift_facts", lambda *_: {})
    with measure:
        merge.run(
            StageContext(
                plan=plan(store, stages),
                run_id="run",
                stage=stages[1],
                store=store,
                work=tmp_path / "work",
                events=events,
            )
        )
    events.flush()
    assert verify(store, "merged/k") == []
    return local_folder(store, "merged/k")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
