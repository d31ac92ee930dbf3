"""LLaMA-Adapter: learnt prompts that the top layers attend to beside the text, by a gate that starts shut
(https://arxiv.org/abs/2303.16199)."""

from __future__ import annotations

import functools
import math
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from artifacts.contract import TrainParams
from train.methods.tokens import Tokens
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: `model_type`s whose attention has the parts that `_adapted_attention` uses.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "glm")
_SPARED_LAYERS = 2  # at the bottom, as the paper's 30 of 32


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens) -> Any:
    """Raises StageUserError for an architecture with another attention, or too few layers."""
    from peft import AdaptionPromptConfig, get_peft_model

    register()
    prompt, config = params.prompt, model.config
    assert prompt is not None, "the plan sets prompt for this method"
    if config.model_type not in MODEL_TYPES:
        raise StageUserError(
            f"LLaMA-Adapter does not know the attention of {type(model).__name__}", "use method lora"
        )
    layers = prompt.adapter_layers or max(1, config.num_hidden_layers - _SPARED_LAYERS)
    if layers > config.num_hidden_layers:
        raise StageUserError(
            f"the model has {config.num_hidden_layers} layers, method.adapter_layers is {layers}",
            f"set it to {config.num_hidden_layers} or fewer",
        )
    adapted = get_peft_model(
        model,
        AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=prompt.virtual_tokens, adapter_layers=layers),
    )
    # PEFT keeps the model's forward of now; hooks, and a loss that is installed later, come by calling it.
    adapted.base_model.forward = lambda *inputs, **more: model(*inputs, **more)
    return adapted


@functools.cache
def register() -> None:
    """Teach PEFT the attention of `MODEL_TYPES`; its own knows Llama and Mistral, without normed queries
    (Qwen3), heads whose width is not hidden size / heads, or a rotation that differs from Llama's (GLM)."""
    from peft.tuners.adaption_prompt import config, layer, model

    class AdaptedAttention(layer.AdaptedAttention):
        forward = _adapted_attention

    model.AdaptedAttention = AdaptedAttention
    for model_type in MODEL_TYPES:
        config.TRANSFORMERS_MODEL_CONFIG[model_type] = config.TRANSFORMERS_MODEL_CONFIG["llama"]


def _adapted_attention(self: Any, **inputs: Any) -> tuple[Any, ...]:
    """The attention's output (B, T, H), plus the gated one of the same queries over the prompt (1, P, H)."""
    attention = self.model
    output, *others = attention(**inputs)
    queries = _queries(attention, inputs["hidden_states"], inputs["position_embeddings"])
    keys, values = _prompt(attention, self.adaption_prompt.to(output.dtype))
    scores = queries @ keys.transpose(2, 3) / math.sqrt(attention.head_dim)
    weights = self.adaption_gate * torch.softmax(scores, dim=-1, dtype=torch.float32)
    attended = (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)
    return (output + attention.o_proj(attended)).to(output.dtype), *others


def _queries(attention: nn.Module, hidden: torch.Tensor, rotation: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """As the attention makes them: (B, heads, T, head width), normed where it norms them, rotated."""
    queries = attention.q_proj(hidden).unflatten(-1, (-1, attention.head_dim))
    queries = _normed(attention, "q_norm", queries).transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    return rotate(queries, queries, *rotation)[0]


def _prompt(attention: nn.Module, prompt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of the prompt, for every query head: (1, heads, P, head width), not rotated."""
    keys = _normed(attention, "k_norm", attention.k_proj(prompt).unflatten(-1, (-1, attention.head_dim)))
    values = attention.v_proj(prompt).unflatten(-1, (-1, attention.head_dim))
    repeats = attention.num_key_value_groups
    return tuple(part.transpose(1, 2).repeat_interleave(repeats, dim=1) for part in (keys, values))  # type: ignore[return-value]


def _normed(attention: nn.Module, name: str, heads: torch.Tensor) -> torch.Tensor:
    norm = getattr(attention, name, None)
    return heads if norm is None else norm(heads)
