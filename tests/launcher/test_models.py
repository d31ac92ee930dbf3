"""What RUN|FOLDER|FILE.gguf means to those who talk to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import (
    GgufParams,
    MergeParams,
    ModelParams,
    Plan,
    PrepareParams,
    QuantizeParams,
    Source,
    StageKind,
    StagePlan,
)
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from artifacts.store import Store
from launcher import models, record
from launcher.errors import UserError
from tests import plan_parts
from tests.launcher.alone.folders import write_adapter
from tests.launcher.plans import write_model

FILES = {
    "model": ["config.json", "model.safetensors"],
    "train": ["adapter_config.json", "adapter_model.safetensors"],
    "prepare": ["tokenizer/tokenizer.json", "train/rows"],
    "merge": ["config.json"],
    "quantize": ["config.json"],
    "gguf": ["bot-q4_k_m.gguf", "bot-q8_0.gguf", "Modelfile"],
}


def a_plan(store: Store, kinds: str) -> Plan:
    """Of the stages named in `kinds`."""
    made: dict[str, StagePlan] = {}
    params: dict[str, Any] = {
        "model": ModelParams(source="folder", trust_remote_code=True),
        "prepare": PrepareParams(max_length=64, packing=True),
        "train": plan_parts.train_params(method="lora"),
        "merge": MergeParams(),
        "quantize": QuantizeParams(),
        "gguf": GgufParams(name="bot", types=["q4_k_m", "q8_0"]),
    }
    for kind in params:
        made[kind] = plan_parts.stage(StageKind(kind), params[kind])
    return plan_parts.plan(store, [made[kind] for kind in kinds.split()])


def complete(store: Store, plan: Plan, kinds: str) -> None:
    for kind in kinds.split():
        writer = ArtifactWriter(store, plan.stage(StageKind(kind)).output)
        for size, name in enumerate(FILES[kind], 1):
            writer.write_bytes(name, b"x" * size)
        writer.commit()


def found(
    folder: Path, kinds: str, product: str | None = None, *, missing: str = ""
) -> tuple[Source, LocalStore]:
    """The source of a run of these stages, of which the `missing` are not complete."""
    store = LocalStore(folder / "store")
    plan = a_plan(store, kinds)
    complete(store, plan, " ".join(kind for kind in kinds.split() if kind not in missing.split()))
    record.create(store, plan, plan.run_id)
    return models.find(plan.run_id, lambda: store, product=product), store


def refused(text: object, product: str | None = None, base_model: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        models.find(str(text), no_store, product=product, base_model=base_model)
    assert len(error.value.problems) == 1
    return str(error.value)


def no_store() -> Store:
    raise AssertionError("a folder needs no store")


ALL = "model prepare train merge quantize gguf"


@pytest.mark.parametrize(
    ("kinds", "product", "expected", "form"),
    [
        (ALL, None, {"folder": "merge"}, "merged model"),
        (ALL, "merged", {"folder": "merge"}, "merged model"),
        (ALL, "quantized", {"folder": "quantize"}, "quantized model"),
        (ALL, "base", {"folder": "model", "tokenizer": "prepare"}, "base model"),
        (
            ALL,
            "adapter",
            {"folder": "model", "adapter": "train", "tokenizer": "prepare"},
            "base model with adapter",
        ),
        (
            "model prepare train",
            None,
            {"folder": "model", "adapter": "train", "tokenizer": "prepare"},
            "base model with adapter",
        ),
        ("model quantize", None, {"folder": "quantize"}, "quantized model"),
        ("model gguf", None, {"gguf": "gguf"}, "GGUF file"),
        ("model", None, {"folder": "model"}, "base model"),
    ],
)
def test_of_a_run(
    tmp_path: Path, kinds: str, product: str | None, expected: dict[str, str], form: str
) -> None:
    source, store = found(tmp_path, kinds, product)
    plan = a_plan(store, kinds)
    assert source.name == plan.run_id and source.form == form and source.trust_remote_code
    places = {name: getattr(source, name) for name in ("folder", "adapter", "gguf", "tokenizer")}
    for name, kind in expected.items():
        output = (tmp_path / "store" / plan.stage(StageKind(kind)).output).resolve()
        place = places.pop(name)
        assert place is not None and place.resolve().is_relative_to(output), name
    assert not any(places.values())


@pytest.mark.parametrize(
    ("product", "name"),
    [("gguf", "bot-q4_k_m.gguf"), ("gguf:q8_0", "bot-q8_0.gguf"), ("gguf:Q8_0", "bot-q8_0.gguf")],
)
def test_one_of_several_gguf_files(tmp_path: Path, product: str, name: str) -> None:
    source, _ = found(tmp_path, ALL, product)
    assert source.gguf is not None and source.gguf.name == name
    assert source.tokenizer is not None, "prompts are written as in training"


@pytest.mark.parametrize(
    ("kinds", "missing", "product", "why"),
    [
        (
            ALL,
            "merge",
            "merged",
            "has not made its merged model yet; it has made: adapter, quantized, gguf, base",
        ),
        ("model prepare train", "", "gguf", "makes no gguf model; it has made: adapter, base"),
        (ALL, "train merge quantize gguf", None, "has made no model yet; `slipway status"),
        (ALL, "model merge quantize gguf", "adapter", "has not made its base model yet"),
        (ALL, "", "gguf:f16", "no GGUF file of type f16"),
        (ALL, "", "best", "is none of merged, adapter, quantized, gguf, base"),
    ],
)
def test_what_a_run_has_not(tmp_path: Path, kinds: str, missing: str, product: str | None, why: str) -> None:
    with pytest.raises(UserError, match=why):
        found(tmp_path, kinds, product, missing=missing)


def test_a_model_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bot")
    assert models.find(str(folder), no_store) == Source(name="bot", folder=folder)
    assert "whole model, and has no quantized form" in refused(folder, "quantized")
    assert "does not say which model it was made of" in refused(folder, "base")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(folder)


def test_an_adapter_folder(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    adapter = write_adapter(tmp_path / "bot", str(base))
    source = models.find(str(adapter), no_store)
    assert source == Source(
        name="bot", folder=base, adapter=adapter, tokenizer=None, form="base model with adapter"
    )
    (adapter / "tokenizer.json").write_text("{}")
    assert models.find(str(adapter), no_store).tokenizer == adapter
    untuned = models.find(str(adapter), no_store, product="base")
    assert untuned == Source(name="bot", folder=base, tokenizer=adapter, form="base model")
    assert "holds no merged model" in refused(adapter, "merged")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "pickled" in refused(adapter)


def test_an_adapters_base_model(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "bot", "org/nowhere")
    assert "--base-model FOLDER" in refused(adapter)
    base = write_model(tmp_path / "base")
    assert models.find(str(adapter), no_store, base_model=str(base)).folder == base
    missing = str(tmp_path / "missing")
    assert f"--base-model {missing}: does not exist" in refused(adapter, base_model=missing)


def test_gguf_files(tmp_path: Path) -> None:
    for size, kind in enumerate(("q4_k_m", "f16"), 1):
        (tmp_path / f"bot-{kind}.gguf").write_bytes(b"x" * size)
    file = tmp_path / "bot-f16.gguf"
    assert models.find(str(file), no_store) == Source(name="bot-f16", gguf=file, form="GGUF file")
    smallest = models.find(str(tmp_path), no_store).gguf
    assert smallest is not None and smallest.name == "bot-q4_k_m.gguf"
    assert models.find(str(tmp_path), no_store, product="gguf:f16").gguf == file
    assert "no GGUF file of type q8_0; it has" in refused(tmp_path, "gguf:q8_0")
    assert "holds GGUF files and no merged model" in refused(tmp_path, "merged")
    assert "holds no base model" in refused(file, "base")
    assert "there is no such file" in refused(tmp_path / "other.gguf")


def test_sources_pass_to_another_process(tmp_path: Path) -> None:
    source = Source(name="bot", folder=tmp_path, adapter=tmp_path / "a", trust_remote_code=True, form="x")
    assert Source.from_json(source.to_json()) == source
    for text in ('{"name": "bot"}', '{"name": "bot", "folder": "a", "gguf": "b"}', "[]", '{"nonsense": 1}'):
        with pytest.raises((ValueError, TypeError)):
            Source.from_json(text)
