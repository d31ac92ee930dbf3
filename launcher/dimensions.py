"""How large a model is, counted from its config.json: what `launcher.memory` computes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Architectures whose query, key and value projections have biases although the config does not say so.
_QKV_BIAS = {"qwen2", "qwen2_moe"}
#: Architectures that normalise queries and keys per head (two vectors of `head_dim` a layer).
_QK_NORM = {"qwen3", "qwen3_moe", "gemma3_text"}
#: Architectures with four norms a layer instead of two.
_FOUR_NORMS = {"gemma2", "gemma3_text"}
#: Defaults that config.json may leave out: transformers' config classes tie these embeddings.
_TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text"}


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """A decoder-only transformer with gated MLPs. Counts are of parameters, not bytes."""

    architecture: str  # config.json's `model_type`
    layers: int
    hidden_size: int
    intermediate_size: int  # of one expert where there are experts
    attention_heads: int
    key_value_heads: int
    head_size: int
    vocabulary_size: int
    max_positions: int
    tie_embeddings: bool
    experts: int = 0  # per layer; 0: a dense MLP
    experts_per_token: int = 0

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear modules; experts are fused tensors and not among them."""
        hidden, queries = self.hidden_size, self.attention_heads * self.head_size
        keys = self.key_value_heads * self.head_size
        shapes = {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
        }
        if not self.experts:
            shapes |= {
                "gate_proj": (hidden, self.intermediate_size),
                "up_proj": (hidden, self.intermediate_size),
                "down_proj": (self.intermediate_size, hidden),
            }
        return shapes

    @property
    def layer_parameters(self) -> int:
        """Parameters of one transformer block."""
        hidden = self.hidden_size
        count = sum(inputs * outputs for inputs, outputs in self.linear_shapes.values())
        if self.experts:
            count += self.experts * (3 * hidden * self.intermediate_size + hidden)  # experts and their router
        count += (4 if self.architecture in _FOUR_NORMS else 2) * hidden
        if self.architecture in _QKV_BIAS:
            count += sum(self.linear_shapes[name][1] for name in ("q_proj", "k_proj", "v_proj"))
        if self.architecture in _QK_NORM:
            count += 2 * self.head_size
        return count

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary_size * self.hidden_size

    @property
    def parameters(self) -> int:
        embeddings = self.embedding_parameters * (1 if self.tie_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings + self.hidden_size

    def lora_parameters(self, rank: int, target_modules: str | list[str]) -> int:
        """Parameters of rank-`rank` adapters: rank × (inputs + outputs) of each target.

        `all-linear` is every linear module but the output head, as PEFT takes it.
        """
        shapes = self.linear_shapes
        if target_modules == "all-linear":
            named = list(shapes)
        else:
            named = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        in_layers = sum(sum(shapes[name]) for name in named if name in shapes)
        head = ({"lm_head", "embed_tokens"} & set(named)) if target_modules != "all-linear" else set()
        return rank * (self.layers * in_layers + len(head) * (self.hidden_size + self.vocabulary_size))


def from_config(config: Mapping[str, Any]) -> Dimensions | None:
    """Read config.json (a multimodal model's `text_config` counts). None where a dimension is missing or odd:
    then the model's size is unknown, which the plan says."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {"tie_word_embeddings": config.get("tie_word_embeddings"), **text}
    architecture = config.get("model_type")
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    layers, vocabulary = _size(config, "num_hidden_layers"), _size(config, "vocab_size")
    experts = _size(config, "num_experts") or _size(config, "num_local_experts") or 0
    dense_width = _size(config, "intermediate_size")
    width = (_size(config, "moe_intermediate_size") or dense_width) if experts else dense_width
    if not (isinstance(architecture, str) and hidden and heads and layers and vocabulary and width):
        return None
    tied = config.get("tie_word_embeddings")
    return Dimensions(
        architecture=architecture,
        layers=layers,
        hidden_size=hidden,
        intermediate_size=width,
        attention_heads=heads,
        key_value_heads=_size(config, "num_key_value_heads") or heads,
        head_size=_size(config, "head_dim") or hidden // heads,
        vocabulary_size=vocabulary,
        max_positions=_size(config, "max_position_embeddings") or 0,
        tie_embeddings=bool(architecture in _TIED_BY_DEFAULT if tied is None else tied),
        experts=experts,
        experts_per_token=_size(config, "num_experts_per_tok") or 0,
    )


def _size(config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
