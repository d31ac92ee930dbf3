"""Counted from config.json, compared with the parameter counts that the models' safetensors hold."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.dimensions import from_config
from tests.launcher.plans import QWEN3_8B

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
QWEN3_600M = {
    **QWEN3_8B,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "tie_word_embeddings": True,
}
QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
QWEN3_MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
MIXTRAL = {
    **LLAMA_8B,
    "model_type": "mixtral",
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
GEMMA2_2B = {
    "model_type": "gemma2",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 256000,
}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (QWEN3_8B, 8_190_735_360),
        (QWEN3_600M, 596_049_920),
        (LLAMA_8B, 8_030_261_248),
        ({**LLAMA_8B, "model_type": "mistral", "vocab_size": 32768}, 7_248_023_552),
        (QWEN2_7B, 7_615_616_512),
        (QWEN3_MOE, 30_532_122_624),
        (MIXTRAL, 46_702_792_704),
        (GEMMA2_2B, 2_614_341_888),
        ({"model_type": "gemma3", "text_config": GEMMA2_2B}, 2_614_341_888),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_counts_parameters_exactly(config: dict[str, Any], parameters: int) -> None:
    dimensions = from_config(config)
    assert dimensions is not None and dimensions.parameters == parameters


@pytest.mark.parametrize(
    ("targets", "parameters"),
    [
        ("all-linear", 43_646_976),  # PEFT's print_trainable_parameters at rank 16
        (["q_proj", "v_proj"], 7_667_712),
        (["nothing"], 0),
        (["lm_head"], 16 * (4096 + 151936)),
    ],
)
def test_counts_adapters(targets: str | list[str], parameters: int) -> None:
    dimensions = from_config(QWEN3_8B)
    assert dimensions is not None
    assert dimensions.lora_parameters(16, targets) == parameters


@pytest.mark.parametrize("missing", ["model_type", "hidden_size", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("value", [None, "64", 0, -1, 2.5, True])
def test_a_size_that_can_not_be_read_is_unknown(missing: str, value: object) -> None:
    if missing == "model_type" and isinstance(value, str):
        return
    assert from_config({**QWEN3_8B, missing: value}) is None
