"""Trained parameters, as `print_trainable_parameters` of PEFT 0.21 counts them."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.dimensions import from_config
from launcher.planning import trainable
from launcher.spec.method import Method
from tests.launcher.plans import QWEN3_8B
from tests.launcher.test_dimensions import BLOOM_560M, CHATGLM3_6B

BLOCK = 192_946_432  # parameters of one of Qwen3-8B's layers
EMBEDDING = 151_936 * 4096


@pytest.mark.parametrize(
    ("config", "method", "expected"),
    [
        (QWEN3_8B, {"type": "full"}, 8_190_735_360),
        (QWEN3_8B, {"type": "lora"}, 43_646_976),
        (QWEN3_8B, {"type": "lora", "target_modules": ["q_proj", "v_proj"]}, 7_667_712),
        (QWEN3_8B, {"type": "lora", "target_modules": ["nothing"]}, 0),
        (QWEN3_8B, {"type": "lora", "target_modules": ["lm_head"]}, 16 * (4096 + 151936)),
        (CHATGLM3_6B, {"type": "lora", "rank": 8, "target_modules": ["query_key_value"]}, 1_949_696),
        (QWEN3_8B, {"type": "lora", "modules_to_save": ["lm_head"]}, 43_646_976 + EMBEDDING),
        (QWEN3_8B, {"type": "lora", "trainable_tokens": ["<a>", "<b>"]}, 43_646_976 + 2 * 4096),
        (
            QWEN3_8B,
            {"type": "lora", "target_modules": ["q_proj"], "dora": True},
            36 * (16 * 8192 + 4096),
        ),
        (QWEN3_8B, {"type": "partial", "train": "head"}, EMBEDDING),
        (QWEN3_8B, {"type": "partial", "last_layers": 2}, 2 * BLOCK),
        (QWEN3_8B, {"type": "partial", "extra_layers": 3}, 3 * BLOCK),
        (QWEN3_8B, {"type": "prompt_tuning"}, 20 * 4096),
        (QWEN3_8B, {"type": "p_tuning_v2", "virtual_tokens": 8}, 8 * 36 * 2 * 1024),
        (
            QWEN3_8B,
            {"type": "prefix_tuning", "virtual_tokens": 8, "projection_size": 512},
            8 * 1024 + 1025 * 512 + 513 * 36 * 2 * 1024,
        ),
        (QWEN3_8B, {"type": "llama_adapter", "adapter_layers": 30}, 30 * (10 * 4096 + 1)),
        (QWEN3_8B, {"type": "ia3"}, 36 * (1024 + 1024 + 12288)),
        (BLOOM_560M, {"type": "ia3"}, 24 * (3 * 1024 + 4 * 1024)),
    ],
    ids=lambda value: value.get("type", "") if isinstance(value, dict) else "",
)
def test_counts(config: dict[str, Any], method: dict[str, Any], expected: int) -> None:
    size = from_config(config)
    assert size is not None
    assert size.layer_parameters == BLOCK or config is not QWEN3_8B
    assert trainable.parameters(size, Method(**method)) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"type": "full"}, 0),
        ({"type": "partial", "last_layers": 2}, 8_190_735_360 - 2 * BLOCK),
        ({"type": "partial", "extra_layers": 2}, 8_190_735_360),
        ({"type": "ia3"}, 8_190_735_360),
    ],
)
def test_what_stays_frozen(method: dict[str, Any], expected: int) -> None:
    size = from_config(QWEN3_8B)
    assert size is not None
    assert trainable.frozen(size, Method(**method)) == expected
