"""A model of each family is rehearsed from its folder to the end: config class, tokenizer and template are
its own, sizes are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind, TwinParams
from artifacts.local import LocalStore
from artifacts.manifest import local_folder
from tests.launcher.plans import write_data
from tests.local.test_examples import slipway
from train.twin import make_twin
from train.twin_architectures import ARCHITECTURES

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(240)]

#: Larger than what a rehearsal makes of them.
SIZES: dict[str, Any] = {"hidden_size": 192, "layers": 3, "attention_heads": 6, "vocabulary_size": 400}


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_rehearses(tmp_path: Path, architecture: str) -> None:
    write_data(tmp_path)
    texts = (tmp_path / "train.jsonl").read_text().splitlines()
    model = tmp_path / "model"
    model.mkdir()
    for name, content in make_twin(TwinParams(architecture=architecture, **SIZES), texts).items():
        (model / name).write_bytes(content)
    method = {"type": "lora", "rank": 4}
    if architecture == "bloom":
        method["quantization"] = "int8"
    job = {
        "name": architecture,
        "model": {"folder": "model"},
        "data": {"train": "train.jsonl", "eval": "dev.jsonl", "test": "test.jsonl"},
        "method": method,
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    plan = slipway(tmp_path, "plan", "job.yaml", "--rehearse")
    result = slipway(tmp_path, "submit", "job.yaml", "--rehearse")
    store = LocalStore(tmp_path / ".slipway/store")
    outputs = {stage["kind"]: stage["output"] for stage in plan["stages"]}
    rehearsed = json.loads((local_folder(store, outputs[StageKind.MODEL]) / "config.json").read_bytes())
    assert rehearsed["architectures"] == [ARCHITECTURES[architecture].model_class]
    assert rehearsed["hidden_size"] == 64
    merged = local_folder(store, outputs[StageKind.MERGE])
    assert json.loads((merged / "config.json").read_bytes())["model_type"] == architecture
    assert result["scores"]["tuned"].keys() >= {"bleu4", "rougeL", "exact_match"}
