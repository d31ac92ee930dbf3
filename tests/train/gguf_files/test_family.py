"""Which models are taken, and what their tokenizers are called in llama.cpp."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.planning.products import GGUF_ARCHITECTURES
from train.gguf_files.family import FAMILIES, check_model, pre_tokenizer
from train.stage import StageUserError
from train.twin import train_tokenizer

#: tokenizer.json of meta-llama/Llama-3.1-8B: digits in threes.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WORDS = BYTES | {"use_regex": True}


def split(pattern: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **more
    }  # fmt: skip


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def test_plan_and_stage_name_the_same_families() -> None:
    assert sorted(FAMILIES) == sorted(GGUF_ARCHITECTURES)


@pytest.mark.parametrize("kind", FAMILIES)
def test_takes_the_families(kind: str) -> None:
    check_model({"model_type": kind, "architectures": [FAMILIES[kind]]})
    check_model({"model_type": kind})


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "no config.json"),
        ({"model_type": "bloom"}, "is a bloom, and gguf converts llama, mistral, qwen2, qwen3"),
        ({"model_type": "qwen3_moe"}, "is a qwen3_moe"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "Classification"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantized model can't"),
    ],
)
def test_refuses_what_is_not_converted(config: dict[str, Any], why: str) -> None:
    with pytest.raises(StageUserError, match=why) as refusal:
        check_model(config)
    assert refusal.value.advice


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (json.loads(train_tokenizer(["a b"], 300).to_str()), "qwen2"),
        (sequence(split(LLAMA_3), BYTES), "llama-bpe"),
        ({"pre_tokenizer": WORDS}, "gpt-2"),
        (sequence({"type": "Digits", "individual_digits": True}, WORDS), "smollm"),
        (sequence({"type": "Digits", "individual_digits": False}, WORDS), None),
        (sequence(split(LLAMA_3, behavior="Removed"), BYTES), None),
        (sequence(split(LLAMA_3), WORDS), None),  # split twice
        (sequence(split(r"\w+"), BYTES), None),
        ({"pre_tokenizer": WORDS | {"add_prefix_space": True}}, None),
        ({"pre_tokenizer": None}, None),
    ],
)
def test_a_pre_tokenizer_is_named_by_its_pattern(tokenizer: dict[str, Any], name: str | None) -> None:
    assert pre_tokenizer(tokenizer) == name
    assert pre_tokenizer(tokenizer, "declared") == (name or "declared")
