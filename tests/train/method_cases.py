"""Every method and variant as the plan gives them to training, and tiny models to train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from artifacts.contract import LoraParams, PartialParams, PromptParams, TrainParams
from tests.train import training

RANK = 4
PROMPT = PromptParams(virtual_tokens=3, adapter_layers=2)


def lora(**changes: Any) -> TrainParams:
    return training.params(method="lora", lora=LoraParams(rank=RANK, alpha=8, **changes))


def partial(**changes: Any) -> TrainParams:
    return training.params(method="partial", lora=None, partial=PartialParams(**changes))


def other(method: Any, **changes: Any) -> TrainParams:
    return training.params(method=method, lora=None, prompt=PROMPT, **changes)


WHOLE = {
    "full": training.params(method="full", lora=None),
    "head": partial(head=True),
    "last layers": partial(last_layers=1),
    "extra layers": partial(extra_layers=2),
}
MERGEABLE = {
    "lora": lora(),
    "rslora": lora(rslora=True),
    "dora": lora(dora=True),
    "pissa": lora(init="pissa"),
    "pissa and rslora": lora(init="pissa", rslora=True),
    "olora": lora(init="olora"),
    "saved modules": lora(modules_to_save=["embed_tokens", "lm_head"]),
    "trained tokens": lora(trainable_tokens=["a", "b"]),
    "ia3": other("ia3"),
}
BESIDE = {
    "prefix": other("prefix_tuning"),
    "p-tuning v2": other("p_tuning_v2"),
    "prompt": other("prompt_tuning"),
    "llama-adapter": other("llama_adapter"),
}
ADAPTERS = {**MERGEABLE, **BESIDE}
#: Those that compute what the base does before their first step.
STARTS_AS_BASE = (
    *(name for name in MERGEABLE if name not in ("pissa", "pissa and rslora", "olora")),
    "llama-adapter",
    "extra layers",
)
TRAINED_TOKENS = {"a": 5, "b": 90}

_COMMON = {
    "vocab_size": training.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def _model(name: str, **changes: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**{**_COMMON, **changes})
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return make


#: A tiny model of each family. Qwen3's heads are wider than hidden size / heads, as its real ones are.
FAMILIES = {
    "llama": _model("Llama"),
    "qwen2": _model("Qwen2"),
    "qwen3": _model("Qwen3", head_dim=16, tie_word_embeddings=True),
    "mistral": _model("Mistral"),
    "gemma": _model("Gemma", head_dim=16),
    "glm": _model("Glm", head_dim=8, pad_token_id=0, eos_token_id=1),
    "bloom": _model("Bloom", n_layer=2, n_head=4, num_key_value_heads=4),
}


def fitting(family: str, names: Iterable[str]) -> Iterator[str]:
    """Those of the methods that fit the family: Bloom knows no adaption prompt, and its modules have other
    names."""
    return (name for name in names if family != "bloom" or name not in ("llama-adapter", "saved modules"))


def write_family(folder: Path, family: str) -> Path:
    FAMILIES[family]().save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def disturb(model: Any, seed: int = 1) -> None:
    """Change everything that is trained, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """Of a text of 12 tokens, or of `tokens` (1, T); those of virtual tokens in front are left out."""
    tokens = torch.arange(3, 15)[None] if tokens is None else tokens
    found: torch.Tensor = model.eval()(input_ids=tokens).logits[:, -tokens.shape[1] :]
    return found.float()
