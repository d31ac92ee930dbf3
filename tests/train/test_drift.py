"""What the merge measures: the merged model against base and adapter, for every kind of adapter, against PEFT
where PEFT is right, and loaded again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPT2LMHeadModel

from artifacts.local import LocalStore
from artifacts.manifest import MARKER, read_marker
from tests.train import gptq, method_cases
from tests.train.merging import merged, tensors
from tests.train.method_cases import load, logits, lora
from tests.train.test_merge import OPTIONS, adapter, assert_same_bits, llama, peft_model
from tests.train.test_quantized import load_for, quantized
from train import methods, weights
from train.merging import drift
from train.merging.probes import token_sequences
from train.stage import StageError, StageUserError

pytestmark = pytest.mark.products

#: Root mean square of the logits' differences, as a share of their deviation: what rounding does to weights.
HEALTHY = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 0.02}

OF_OTHERS = {
    "dora of the embedding": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "all biases": {"bias": "all"},
    "some layers": {
        "target_modules": ["q_proj", "down_proj"],
        "layers_to_transform": [0, 2],
        "layers_pattern": "layers",
    },
    "modules named by a pattern": {"target_modules": r".*\.(q|down)_proj"},
    "everything at once": {
        "target_modules": ["q_proj", "o_proj", "up_proj"],
        "rank_pattern": {"o_proj": 2},
        "alpha_pattern": {"up_proj": 3},
        "use_rslora": True,
        "use_dora": True,
        "trainable_token_indices": {"embed_tokens": [3, 150]},
    },
    "a whole block": {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
    "initialised by a gaussian": {"init_lora_weights": "gaussian"},
}


def facts(tmp_path: Path) -> dict[str, Any]:
    marker = read_marker(LocalStore(tmp_path / "store"), "merged/k")
    assert marker is not None
    return marker.facts


def assert_loads_strictly(folder: Path) -> Any:
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("dtype", HEALTHY, ids=str)
@pytest.mark.parametrize("name", ["plain", "dora", "tokens", "saved modules", "ia3"])
def test_what_rounding_does_is_measured_and_told(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    base = llama(tmp_path / "base", dtype)
    trained = adapter(tmp_path / "adapter", base, **OPTIONS[name])
    merged(tmp_path, base, trained, measured=True)
    told = facts(tmp_path)
    assert 0 <= told["drift"] < HEALTHY[dtype]
    assert told["same_top_token"] > 0.9
    assert told["parameters"] > 0


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", OF_OTHERS)
def test_adapters_of_others(tmp_path: Path, name: str, tied: bool) -> None:
    base = llama(tmp_path / "base", tied=tied)
    trained = adapter(tmp_path / "adapter", base, **OF_OTHERS[name])
    folder = merged(tmp_path, base, trained, measured=True)
    assert facts(tmp_path)["drift"] < HEALTHY[torch.float32]
    expected = logits(peft_model(base, trained))
    assert (expected - logits(load(base))).abs().max() > 0.02
    torch.testing.assert_close(logits(assert_loads_strictly(folder)), expected, rtol=1e-4, atol=2e-5)
    if not tied:
        peft_model(base, trained).merge_and_unload().save_pretrained(tmp_path / "theirs")
        assert_same_bits(tensors(folder), tensors(tmp_path / "theirs"))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [3, 150]},
    ],
    ids=["embedding", "head", "saved embedding", "tokens"],
)
@pytest.mark.parametrize("tying", [False, True], ids=["", "ensure_weight_tying"])
def test_tied_embeddings_compute_what_the_adapter_does(
    tmp_path: Path, options: dict[str, Any], tying: bool
) -> None:
    """PEFT's own merge is wrong for these: it adds both changes to the one weight."""
    base = llama(tmp_path / "base", tied=True)
    trained = adapter(tmp_path / "adapter", base, ensure_weight_tying=tying, **options)
    folder = merged(tmp_path, base, trained, measured=True)
    assert facts(tmp_path)["drift"] < HEALTHY[torch.float32]
    expected = logits(peft_model(base, trained))
    torch.testing.assert_close(logits(assert_loads_strictly(folder)), expected, rtol=1e-4, atol=2e-5)


def without_prefix(folder: Path) -> None:
    """Weights named as the hub's checkpoints of GPT-2 and Bloom name them."""
    for file in folder.glob("*.safetensors"):
        renamed = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
        save_file(renamed, file, metadata={"format": "pt"})


def gpt2(folder: Path) -> None:
    torch.manual_seed(1)
    GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2)).save_pretrained(folder)


def bloom(folder: Path) -> None:
    torch.manual_seed(1)
    config = BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (gpt2, {"target_modules": ["c_attn", "c_proj"]}),
        (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
        (gpt2, {"target_modules": ["c_attn", "lm_head"], "modules_to_save": ["wpe"]}),
        (bloom, {"target_modules": ["query_key_value", "dense"], "modules_to_save": ["ln_f"]}),
    ],
    ids=["gpt2", "gpt2, dora", "gpt2, head", "bloom"],
)
@pytest.mark.parametrize("prefixed", [False, True], ids=["named as on the hub", "named as saved"])
def test_other_families_and_names(
    tmp_path: Path, make: Callable[[Path], None], options: dict[str, Any], prefixed: bool
) -> None:
    base = tmp_path / "base"
    make(base)
    trained = adapter(tmp_path / "adapter", base, **options)
    if not prefixed:
        without_prefix(base)
    folder = merged(tmp_path, base, trained, measured=True)
    assert facts(tmp_path)["drift"] < 1e-5
    expected = logits(peft_model(base, trained))
    assert (expected - logits(load(base))).abs().max() > 0.01
    torch.testing.assert_close(logits(assert_loads_strictly(folder)), expected, rtol=1e-4, atol=2e-5)


def test_a_model_grown_for_new_tokens(tmp_path: Path) -> None:
    """Added by hand, its embeddings saved whole beside the adapter, as PEFT does for resized models."""
    base = llama(tmp_path / "base")
    model = load(base)
    model.resize_token_embeddings(170)
    model.save_pretrained(tmp_path / "grown")
    trained = adapter(tmp_path / "adapter", tmp_path / "grown", modules_to_save=["embed_tokens", "lm_head"])
    folder = merged(tmp_path, base, trained, measured=True)
    assert facts(tmp_path)["drift"] < HEALTHY[torch.float32]
    whole = assert_loads_strictly(folder)
    assert whole.config.vocab_size == len(whole.lm_head.weight) == 170
    tokens = torch.arange(158, 170)[None]
    expected = logits(peft_model(tmp_path / "grown", trained), tokens)
    torch.testing.assert_close(logits(whole, tokens), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_of_a_quantized_base_goes_with_the_plain_one(tmp_path: Path, quantization: Any) -> None:
    base = method_cases.write_family(tmp_path / "base", "qwen3")
    half = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    half.save_pretrained(base)
    job = quantized(lora(), quantization)
    model = methods.apply(load_for(job, base), job)
    method_cases.disturb(model)
    weights.write_adapter(model, tmp_path / "final", base_name="b", writes=True, for_base=True)
    folder = merged(tmp_path, base, tmp_path / "final", measured=True)
    assert facts(tmp_path)["drift"] < HEALTHY[torch.bfloat16]
    assert "quantization_config" not in json.loads((folder / "config.json").read_bytes())
    assert {tensor.dtype for tensor in tensors(folder).values()} == {torch.bfloat16}


def test_an_adapter_of_a_gptq_base_goes_with_the_model_that_was_quantized(tmp_path: Path) -> None:
    base = method_cases.write_family(tmp_path / "base", "llama")
    folder = gptq.write_gptq(base, tmp_path / "gptq")
    job = quantized(lora(modules_to_save=["lm_head"]), "gptq")
    model = methods.apply(load_for(job, folder), job)
    method_cases.disturb(model)
    weights.write_adapter(model, tmp_path / "final", base_name="b", writes=True, for_base=True)
    with pytest.raises(StageUserError, match=r"quantized base model.*merge\.original"):
        merged(tmp_path, folder, tmp_path / "final")
    whole = load(merged(tmp_path, base, tmp_path / "final", measured=True))
    assert facts(tmp_path)["drift"] < HEALTHY[torch.float32]
    assert (logits(whole) - logits(model)).abs().max() < 0.3  # what quantizing the base had moved
    assert (logits(whole) - logits(load(base))).abs().max() > 0.3


def test_whole_weights_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    merged(tmp_path, base, base, measured=True)
    assert "drift" not in facts(tmp_path)


def halve_the_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    from train.merging import adapter as adapters

    scaling = adapters.module_scaling
    monkeypatch.setattr(adapters, "module_scaling", lambda *given: scaling(*given) / 2)


def lose_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    from train.merging import layout

    fitted = layout.fitted

    def all_but_one(*given: Any) -> Any:
        whole = fitted(*given)
        rest = dict(list(whole.updates.items())[1:])
        return dataclasses.replace(whole, updates=rest)

    monkeypatch.setattr(layout, "fitted", all_but_one)


@pytest.mark.parametrize("mistake", [halve_the_scaling, lose_a_matrix])
def test_a_merge_that_went_wrong_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[pytest.MonkeyPatch], None]
) -> None:
    base = llama(tmp_path / "base", torch.bfloat16)
    trained = adapter(tmp_path / "adapter", base)
    mistake(monkeypatch)
    with pytest.raises(StageError) as failed:
        merged(tmp_path, base, trained, measured=True)
    assert "max_drift is 0.05" in failed.value.cause and "merge.max_drift" in failed.value.advice
    assert not (tmp_path / "store" / "merged" / "k" / MARKER).exists()


def test_a_bound_below_rounding_fails(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", torch.bfloat16)
    trained = adapter(tmp_path / "adapter", base)
    with pytest.raises(StageError, match="rounding of 16-bit weights"):
        merged(tmp_path, base, trained, measured=True, max_drift=1e-4)


def test_a_broken_figure_is_no_small_one() -> None:
    with pytest.raises(StageError):
        drift.check(drift.Drift(float("nan"), 1.0), 0.05)


def test_the_figure() -> None:
    before = [torch.tensor([[1.0, -1.0], [1.0, -1.0]])]
    after = [torch.tensor([[1.5, -1.5], [-0.5, 0.5]])]
    found = drift.compare(before, after)
    assert found.share == pytest.approx(((2 * 0.25 + 2 * 2.25) / 4) ** 0.5)
    assert found.same_top == 0.5
    assert drift.compare(before, before) == drift.Drift(0.0, 1.0)


def test_weights_are_read_module_by_module_and_compute_the_same(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", torch.bfloat16)
    trained = adapter(tmp_path / "adapter", base, use_dora=True)
    tokens = token_sequences(base, 160)
    (whole,) = [peft_model(base, trained).float()]
    with torch.no_grad():
        expected = [whole(torch.tensor([row])).logits[0] for row in tokens]
    for ours, theirs in zip(drift.logits(base, tokens, trained), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
