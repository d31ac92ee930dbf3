"""Which models are converted, and how their text is split into words before the merges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.stage import StageUserError

#: By config.json's `model_type`: the class that its weights must be for. llama.cpp's converter knows more
#: architectures; these are the ones whose answers are compared here (tests/train/test_gguf.py).
FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: The pattern of a tokenizer.json, and llama.cpp's name for the pre-tokenizer that has it: see
#: `llm_tokenizer_bpe` in its src/llama-vocab.cpp (llama-cpp-python 0.3.36), the originals in comments.
_PATTERNS = {
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}": "qwen2",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


def check_model(config: Mapping[str, Any]) -> None:
    """Raises StageUserError for a model (its config.json) that is not converted."""
    if not config:
        raise StageUserError("the input is no model folder: it has no config.json", "give a merged model")
    if config.get("quantization_config"):
        raise StageUserError(
            "a quantized model can't be converted to GGUF: its weights are rounded already",
            "convert the merged model in full precision (`after: [merge, gguf]`)",
        )
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise StageUserError(
            f"the model is a {kind}, and gguf converts {', '.join(FAMILIES)}", "leave gguf out of `after`"
        )
    named = config.get("architectures") or [FAMILIES[kind]]
    if named != [FAMILIES[kind]]:
        raise StageUserError(
            f"the model is a {', '.join(named)}, and gguf converts {FAMILIES[kind]}",
            "leave gguf out of `after`",
        )


def pre_tokenizer(tokenizer: Mapping[str, Any], declared: str | None = None) -> str | None:
    """llama.cpp's name for how this tokenizer.json splits text, by the very pattern it holds; else what its
    maker declared; None where neither says. The converter itself knows only vocabularies of published models,
    by a hash. Nothing is taken on trust: the stage compares token ids afterwards."""
    steps = _steps(tokenizer.get("pre_tokenizer"))
    splits = [step for step in steps if step.get("type") != "ByteLevel"]
    by_words = any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps)
    prefixed = any(step.get("add_prefix_space") for step in steps)
    found = None
    if steps and not prefixed:
        if len(splits) == 1 and not by_words and splits[0].get("behavior") == "Isolated":
            found = _PATTERNS.get(splits[0].get("pattern", {}).get("Regex"))
        elif not splits and by_words:
            found = "gpt-2"
        elif by_words and [(step["type"], step.get("individual_digits")) for step in splits] == [
            ("Digits", True)
        ]:
            found = "smollm"
    return found or declared


def opens_with_blank(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a SentencePiece tokenizer puts its blank before the beginning of a text alone. llama.cpp puts
    it before what follows a special token as well, or nowhere."""
    steps = _steps(tokenizer.get("pre_tokenizer"))
    return any(step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first" for step in steps)


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not pre_tokenizer:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return list(pre_tokenizer["pretokenizers"])
    return [pre_tokenizer]
