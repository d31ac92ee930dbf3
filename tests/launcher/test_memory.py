from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from launcher.dimensions import Dimensions, from_config
from launcher.memory import Estimate, Setting, bytes_text, count, estimate
from launcher.planning import trainable
from launcher.spec.method import Method
from tests.launcher.plans import QWEN3_8B

GB = 10**9


def dimensions(**changes: Any) -> Dimensions:
    found = from_config({**QWEN3_8B, **changes})
    assert found is not None
    return found


def setting(method: str = "full", **changes: Any) -> Setting:
    size = changes.pop("dimensions", dimensions())
    values: dict[str, Any] = {
        "trainable": trainable.parameters(size, Method(type=method)),
        "frozen": trainable.frozen(size, Method(type=method)),
        "precision": "bf16",
        "strategy": "ddp",
        "offload": "none",
        "workers": 1,
        "micro_batch_size": 1,
        "max_length": 2048,
        "gradient_checkpointing": True,
    }
    return Setting(dimensions=size, **{**values, **changes})


def states_bytes(result: Estimate) -> int:
    """Without activations, logits and overhead."""
    names = ("weights", "adapters", "gradients")
    return sum(term.bytes for term in result.worker if any(name in term.name for name in names))


@pytest.mark.parametrize(
    ("changes", "bytes_per_parameter"),
    [
        ({"precision": "fp32"}, 16),
        ({"precision": "bf16"}, 18),
        ({"strategy": "zero2", "workers": 4}, 2 + 18 / 4),
        ({"strategy": "zero2", "offload": "optimizer", "workers": 4}, 2),
    ],
)
def test_states_of_full_training(changes: dict[str, Any], bytes_per_parameter: float) -> None:
    result = estimate(setting(**changes), on_gpu=True)
    assert states_bytes(result) == pytest.approx(bytes_per_parameter * 8_190_735_360)


def test_full_training_of_qwen_7b_as_published() -> None:
    """Qwen-7B, full, two A100: 139.2 GB in total at 256 tokens (QwenLM/Qwen README)."""
    assert pytest.approx(139.2, rel=0.01) == 18 * 7_721_324_544 / GB  # what the next lines compute with
    size = dimensions(intermediate_size=11008, num_hidden_layers=32, num_key_value_heads=32)
    per_parameter = states_bytes(estimate(setting(dimensions=size), on_gpu=True)) / size.parameters
    assert per_parameter == 18


def test_states_of_lora_are_frozen_weights_and_adapters() -> None:
    result = estimate(setting("lora"), on_gpu=True)
    assert states_bytes(result) == 2 * 8_190_735_360 + 16 * 43_646_976
    assert 18 * GB < result.worker_bytes < 23 * GB  # published: 23.8 GB, with eager logits


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_sharding_divides_the_states(strategy: str, method: str) -> None:
    one = states_bytes(estimate(setting(method), on_gpu=True))
    size = dimensions()
    gathered = 2 * (2 * size.layer_parameters + size.embedding_parameters)
    result = estimate(setting(method, strategy=strategy, workers=8), on_gpu=True)
    assert states_bytes(result) == pytest.approx(one / 8 + gathered)


@pytest.mark.parametrize("offload", ["optimizer", "params"])
def test_offloading_moves_states_to_the_host(offload: str) -> None:
    kept = estimate(setting(strategy="zero3", workers=8), on_gpu=True)
    moved = estimate(setting(strategy="zero3", offload=offload, workers=8), on_gpu=True)
    assert kept.host_bytes == 0
    assert moved.worker_bytes < kept.worker_bytes
    each = 16 if offload == "optimizer" else 18
    assert moved.host_bytes == each * 8_190_735_360 * 1.5  # DeepSpeed's estimator


def test_checkpointing_keeps_one_number_per_token_layer_and_width() -> None:
    result = estimate(setting(), on_gpu=True)
    kept = next(term for term in result.worker if term.name == "checkpointed activations")
    assert kept.bytes == 2048 * 2 * 36 * 4096
    whole = estimate(setting(gradient_checkpointing=False), on_gpu=True)
    assert whole.worker_bytes > result.worker_bytes


def test_memory_grows_with_tokens_but_logits_come_in_chunks() -> None:
    def logits(length: int) -> int:
        result = estimate(setting(max_length=length), on_gpu=True)
        return next(term.bytes for term in result.worker if term.name == "logits")

    assert logits(8) == 12 * 8 * 151936
    assert logits(2048) == logits(65536) == 12 * 32 * 1024 * 1024
    small, large = (estimate(setting(max_length=n), on_gpu=True).worker_bytes for n in (1024, 65536))
    assert large > small


def test_formulas_show_their_numbers() -> None:
    result = estimate(setting("lora", strategy="fsdp", workers=8), on_gpu=True)
    formulas = {term.name: term.formula for term in result.worker}
    assert formulas["frozen weights"] == "2 B × P 8.19 G ÷ 8 workers"
    assert formulas["adapters, gradients, AdamW"] == "16 B × T 43.6 M ÷ 8 workers"
    assert formulas["checkpointed activations"] == "s 2,048 × 2 B × L 36 × h 4,096"


def test_experts_at_work_count_in_activations_all_of_them_in_weights() -> None:
    dense = setting(dimensions=dimensions(intermediate_size=1024), gradient_checkpointing=False)
    sparse = dataclasses.replace(
        dense,
        dimensions=dimensions(intermediate_size=1024, num_experts=64, num_experts_per_tok=2),
    )
    one, two = (
        next(term.bytes for term in estimate(each, on_gpu=True).worker if term.name == "activations")
        for each in (dense, sparse)
    )
    assert one < two < 2 * one
    assert sparse.dimensions.parameters > 10 * (dense.dimensions.parameters - 2 * 151936 * 4096)


def test_numbers_for_people() -> None:
    texts = [bytes_text(n) for n in (12, 12_345, 640_000_000, 81_900_000_000, 1_234_500_000_000)]
    assert texts == ["12 B", "12 kB", "640 MB", "81.9 GB", "1,234.5 GB"]
    assert [count(n) for n in (7, 43_646_976, 8_190_735_360)] == ["7", "43.6 M", "8.19 G"]


@pytest.mark.parametrize(
    ("quantization", "bytes_per_weight"), [("nf4", 0.52), ("int8", 1.0), ("gptq", 0.52), ("none", 2.0)]
)
def test_quantized_bases_keep_embeddings_and_norms_in_16_bits(
    quantization: str, bytes_per_weight: float
) -> None:
    result = estimate(setting("lora", quantization=quantization), on_gpu=True)
    linear = 36 * 192_937_984  # Qwen3-8B's linear layers
    frozen = next(term.bytes for term in result.worker if term.name == "frozen weights")
    assert frozen == pytest.approx(bytes_per_weight * linear + 2 * (8_190_735_360 - linear), abs=2)


def test_q_lora_of_qwen_7b_is_near_what_is_published() -> None:
    """Qwen-7B, Q-LoRA (GPTQ, Int4), one A100, 512 tokens: 11.5 GB (QwenLM/Qwen README, 2024), rank 64; eager
    logits among them."""
    size = dimensions(intermediate_size=11008, num_hidden_layers=32, num_key_value_heads=32)
    method = Method(type="lora", rank=64)
    asked = setting(
        "lora",
        dimensions=size,
        trainable=trainable.parameters(size, method),
        quantization="gptq",
        max_length=512,
    )
    assert estimate(asked, on_gpu=True).worker_bytes == pytest.approx(11.5 * GB, rel=0.1)


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_parameter"),
    [("adamw", 18), ("paged_adamw", 18), ("adamw_8bit", 12), ("paged_adamw_8bit", 12), ("adafactor", 10)],
)
def test_optimizers_keep_more_or_less(optimizer: str, bytes_per_parameter: float) -> None:
    result = estimate(setting(optimizer=optimizer), on_gpu=True)
    assert states_bytes(result) == bytes_per_parameter * 8_190_735_360


def test_zero1_splits_the_optimizer_s_state_alone() -> None:
    result = estimate(setting(strategy="zero1", workers=4), on_gpu=True)
    # 16-bit weights and gradients whole; of fp32 weights, moments and 16-bit copies a quarter.
    assert states_bytes(result) == pytest.approx((2 + 2 + 14 / 4) * 8_190_735_360)


def test_hybrid_sharding_splits_within_a_node() -> None:
    whole, hybrid = (
        states_bytes(estimate(setting(strategy="fsdp", workers=16, shards=shards), on_gpu=True))
        for shards in (None, 8)
    )
    assert hybrid - whole == pytest.approx(18 * 8_190_735_360 / 16)


def test_single_is_as_ddp() -> None:
    assert estimate(setting(strategy="single"), on_gpu=True) == estimate(setting(), on_gpu=True)
