"""What is saved of each method computes what was trained: with its base, merged, and loaded by plain
transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from artifacts.contract import TrainParams
from tests.train import method_cases, training
from tests.train.merging import merged
from tests.train.method_cases import ADAPTERS, BESIDE, MERGEABLE, TRAINED_TOKENS, WHOLE, load, logits
from train import methods, weights
from train.methods import Tokens

ADDED = {"<|start|>": training.VOCABULARY, "<|end|>": training.VOCABULARY + 1}
NEW_TEXT = torch.tensor([[3, ADDED["<|start|>"], 7, ADDED["<|end|>"], 5, 90]])


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request: Any, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return training.write_model(folder, tied=request.param == "tied")


def trained(base: Path, params: TrainParams, new: Tokens | None = None) -> Any:
    torch.manual_seed(0)
    tokens = TRAINED_TOKENS if params.lora and params.lora.trainable_tokens else {}
    model = methods.apply(load(base), params, new or Tokens(trained=tokens))
    method_cases.disturb(model)
    return model


def saved(model: Any, base: Path, folder: Path) -> Path:
    """As `train.saving.write_final` writes it."""
    if hasattr(model, "peft_config"):
        weights.write_adapter(
            model, folder, base_name="org/base", base_revision="c0ffee", writes=True, for_base=True
        )
    else:
        weights.write_model(model, folder, base=base, writes=True)
    return folder


def assert_equal(found: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert (expected - base).abs().max() > 0.01, "nothing was trained: equality proves nothing"


@pytest.mark.parametrize("name", MERGEABLE)
def test_adapter_merged_and_reloaded_are_one(tmp_path: Path, base: Path, name: str) -> None:
    model = trained(base, MERGEABLE[name])
    expected, untrained = logits(model), logits(load(base))
    folder = saved(model, base, tmp_path / "final")
    assert_equal(logits(methods.load_adapter(load(base), folder)), expected, untrained)
    assert_equal(logits(load(merged(tmp_path, base, folder))), expected, untrained)


@pytest.mark.parametrize("name", BESIDE)
def test_an_adapter_beside_its_base_is_reloaded(tmp_path: Path, base: Path, name: str) -> None:
    model = trained(base, BESIDE[name])
    expected = logits(model)
    folder = saved(model, base, tmp_path / "final")
    assert_equal(logits(methods.load_adapter(load(base), folder)), expected, logits(load(base)))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_model_loads_with_plain_transformers(tmp_path: Path, base: Path, name: str) -> None:
    model = trained(base, WHOLE[name])
    expected, untrained = logits(model), logits(load(base))
    folder = saved(model, base, tmp_path / "final")
    assert_equal(logits(load(folder)), expected, untrained)
    again = merged(tmp_path, base, folder)
    assert_equal(logits(load(again)), expected, untrained)
    layers = json.loads((again / "config.json").read_bytes())["num_hidden_layers"]
    assert layers == (4 if name == "extra layers" else 2)


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_added_tokens_survive_saving_merging_and_loading(tmp_path: Path, base: Path, strategy: str) -> None:
    """Under ZeRO-3 the embeddings are trained whole, else the new rows alone."""
    params = training.params(method="lora", lora=training.LORA, strategy=strategy)
    model = trained(base, params, Tokens(added=ADDED))
    expected = logits(model, NEW_TEXT)
    folder = saved(model, base, tmp_path / "final")
    assert (logits(methods.load_adapter(load(base), folder), NEW_TEXT) - expected).abs().max() < 2e-5
    again = merged(tmp_path, base, folder)
    config = json.loads((again / "config.json").read_bytes())
    assert config["vocab_size"] == training.VOCABULARY + 2
    assert (logits(load(again), NEW_TEXT) - expected).abs().max() < 2e-5
    whole = [name for name in load_file(folder / "adapter_model.safetensors") if "tokens.weight" in name]
    assert len(whole) == (strategy == "zero3")


def test_added_tokens_of_a_model_that_is_trained_whole(tmp_path: Path, base: Path) -> None:
    model = trained(base, WHOLE["full"], Tokens(added=ADDED))
    expected = logits(model, NEW_TEXT)
    folder = saved(model, base, tmp_path / "final")
    assert (logits(load(folder), NEW_TEXT) - expected).abs().max() < 2e-5
    again = merged(tmp_path, base, folder)
    assert (logits(load(again), NEW_TEXT) - expected).abs().max() < 2e-5


def test_frozen_weights_of_a_partly_trained_model_are_the_bits_on_disk(tmp_path: Path) -> None:
    """Though training holds them in bfloat16, where the base has float32."""
    base = training.write_model(tmp_path / "base")
    from transformers import AutoModelForCausalLM

    held = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = methods.apply(held, method_cases.partial(last_layers=1))
    method_cases.disturb(model)
    before = load_file(base / "model.safetensors")
    after = load_file(saved(model, base, tmp_path / "final") / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if ".layers.1." in name}


@pytest.mark.parametrize("name", ["pissa", "ia3", "prefix", "llama-adapter"])
def test_the_base_is_named(tmp_path: Path, name: str) -> None:
    base = training.write_model(tmp_path / "base")
    config = json.loads(
        (saved(trained(base, ADAPTERS[name]), base, tmp_path) / "adapter_config.json").read_bytes()
    )
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "c0ffee")


def test_a_resumed_prefix_is_trained_on_where_it_was(tmp_path: Path, base: Path) -> None:
    """The adapter's file holds what the projection made; a checkpoint, what it makes that from."""
    first = trained(base, BESIDE["prefix"])
    weights.write_trained(first, tmp_path, writes=True)
    second = methods.apply(load(base), BESIDE["prefix"])
    assert not torch.equal(logits(second), logits(first))
    assert weights.read_trained(second, tmp_path)
    assert torch.equal(logits(second), logits(first))
