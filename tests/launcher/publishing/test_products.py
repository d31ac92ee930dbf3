from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.download import DamagedError
from artifacts.store import ObjectMissingError
from launcher.publishing import products
from tests.artifacts.remote import RemoteStore
from tests.launcher.publishing import runs


def test_what_is_alone_lies_at_the_root() -> None:
    assert products.folders(["gguf"]) == {"gguf": ""}
    assert products.folders(["quantized"]) == {"quantized": ""}
    assert products.folders(["model", "adapter", "quantized", "gguf"]) == {
        "model": "",
        "adapter": "adapter/",
        "quantized": "gptq/",
        "gguf": "gguf/",
    }
    assert products.folders(["adapter", "gguf"]) == {"adapter": "adapter/", "gguf": "gguf/"}


@pytest.mark.parametrize(
    ("path", "published"),
    [
        ("model.safetensors", True),
        ("tokenizer.model", True),
        ("modeling_x.py", True),
        ("sub/kernel.cu", True),
        ("Modelfile", True),
        ("LICENSE", True),
        ("x.gguf", True),
        ("pytorch_model.bin", False),
        ("optimizer.pt", False),
        ("metrics.jsonl", False),
        ("tensorboard/events.out.tfevents.0.slipway", False),
        ("tensorboard/notes.txt", False),
        (".cache/x.json", False),
        ("COMPLETE", False),
    ],
)
def test_only_what_others_load_is_published(path: str, published: bool) -> None:
    assert products.is_published(path) == published


@pytest.mark.parametrize("remote", [False, True])
def test_files_are_gathered_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    store, plan = runs.make(tmp_path / "store")
    stage, seen = plan.stage(StageKind.PUBLISH), []
    place = RemoteStore(tmp_path / "store") if remote else store
    wanted = products.manifests(stage, ["model", "adapter"], place)
    files = products.collect(
        stage, wanted, place, base_name="team/base", progress=lambda *told: seen.append(told)
    )
    by_path = {file.path: file for file in files}
    assert by_path["model.safetensors"].source is not None
    assert by_path["model.safetensors"].source.read_bytes() == runs.WEIGHTS
    assert json.loads(by_path["config.json"].content) == {"model_type": "qwen3"}
    assert "adapter/optimizer.pt" not in by_path and "adapter/metrics.jsonl" not in by_path
    assert seen[-1][0] == seen[-1][1] == sum(manifest.size_bytes for manifest in wanted.values())


@pytest.mark.parametrize("how", ["flipped", "shorter", "missing"])
def test_what_is_damaged_is_not_published(tmp_path: Path, how: str) -> None:
    store, plan = runs.make(tmp_path / "store")
    stage = plan.stage(StageKind.PUBLISH)
    file = tmp_path / "store" / stage.inputs["model"] / "model.safetensors"
    content = bytearray(file.read_bytes())
    if how == "flipped":
        content[1000] ^= 1
    file.write_bytes(content[:-1] if how == "shorter" else content)
    if how == "missing":
        file.unlink()
    wanted = products.manifests(stage, ["model"], store)
    with pytest.raises(DamagedError, match=r"model.safetensors is damaged: .*nothing of it is published"):
        products.collect(stage, wanted, store)


def test_a_product_that_is_not_there(tmp_path: Path) -> None:
    store, plan = runs.make(tmp_path / "store")
    stage = plan.stage(StageKind.PUBLISH)
    store.delete(f"{stage.inputs['model']}/COMPLETE.json")
    with pytest.raises(ObjectMissingError):
        products.manifests(stage, ["model"], store)
