"""Counted from config.json, compared with the parameter counts that the models' safetensors hold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from artifacts.contract import TwinParams
from launcher.dimensions import from_config
from tests.launcher.plans import QWEN3_8B
from train.twin_architectures import ARCHITECTURES

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

GEMMA_2B = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 256000,
}
GLM_4_9B = {
    "model_type": "glm",
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151552,
    "tie_word_embeddings": False,
}
CHATGLM3_6B = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_layers": 28,
    "num_attention_heads": 32,
    "multi_query_group_num": 2,
    "kv_channels": 128,
    "padded_vocab_size": 65024,
    "seq_length": 8192,
    "tie_word_embeddings": False,
}
BLOOM_560M = {
    "model_type": "bloom",
    "hidden_size": 1024,
    "n_layer": 24,
    "n_head": 16,
    "vocab_size": 250880,
    "seq_length": 2048,
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
        (GEMMA_2B, 2_506_172_416),
        (GLM_4_9B, 9_399_951_360),
        (CHATGLM3_6B, 6_243_584_000),
        (BLOOM_560M, 559_214_592),
        ({"model_type": "gemma3", "text_config": GEMMA2_2B}, 2_614_341_888),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_counts_parameters_exactly(config: dict[str, Any], parameters: int) -> None:
    dimensions = from_config(config)
    assert dimensions is not None and dimensions.parameters == parameters


@pytest.mark.parametrize("missing", ["model_type", "hidden_size", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("value", [None, "64", 0, -1, 2.5, True])
def test_a_size_that_can_not_be_read_is_unknown(missing: str, value: object) -> None:
    if missing == "model_type" and isinstance(value, str):
        return
    assert from_config({**QWEN3_8B, missing: value}) is None


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_counts_every_twin(architecture: str) -> None:
    made = ARCHITECTURES[architecture]
    params = TwinParams(architecture=architecture, tie_embeddings=False)
    config = {"model_type": architecture, "vocab_size": 300, "hidden_size": params.hidden_size}
    config |= made.config(params) | {"tie_word_embeddings": False}
    size = from_config(config)
    assert size is not None
    assert size.parameters == sum(math.prod(shape) for shape in made.shapes(config).values())
