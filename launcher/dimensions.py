"""How large a model is, counted from its config.json: what `launcher.memory` computes with.

Layouts of a block follow transformers' implementations; counts are held against the parameter counts of
published safetensors (tests/launcher/test_dimensions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Architectures whose query, key and value projections have biases although the config does not say so.
_QKV_BIAS = {"qwen2", "qwen2_moe", "glm", "chatglm", "bloom"}
#: Architectures that normalise queries and keys per head (two vectors of `head_dim` a layer).
_QK_NORM = {"qwen3", "qwen3_moe", "gemma3_text"}
#: Architectures with four norms a layer instead of two.
_FOUR_NORMS = {"gemma2", "gemma3_text"}
#: Architectures that make gate and up projection in one product.
_FUSED_GATE = {"glm", "glm4", "phi3"}
#: Architectures whose modules are named as in Megatron (queries, keys and values in one product).
_MEGATRON_NAMES = {"bloom", "chatglm"}
#: Defaults that config.json may leave out: transformers' config classes tie these embeddings.
_TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text", "bloom"}
#: What some configs call their sizes.
_OTHER_NAMES = {
    "hidden_size": ("n_embed",),  # bloom
    "num_hidden_layers": ("n_layer", "num_layers"),  # bloom, chatglm
    "num_attention_heads": ("n_head",),  # bloom
    "num_key_value_heads": ("multi_query_group_num",),  # chatglm
    "intermediate_size": ("ffn_hidden_size",),  # chatglm
    "head_dim": ("kv_channels",),  # chatglm
    "vocab_size": ("padded_vocab_size",),  # chatglm
    "max_position_embeddings": ("seq_length",),  # chatglm, bloom: what it was trained on
}


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """A decoder-only transformer. Counts are of parameters, not bytes."""

    architecture: str  # config.json's `model_type`
    layers: int
    hidden_size: int
    intermediate_size: int  # of one expert where there are experts
    attention_heads: int
    key_value_heads: int
    head_size: int
    vocabulary_size: int
    max_positions: int  # 0: no bound
    tie_embeddings: bool
    experts: int = 0  # per layer; 0: a dense MLP
    experts_per_token: int = 0

    @property
    def key_value_size(self) -> int:
        """Outputs of the key projection, and of the value projection."""
        return self.key_value_heads * self.head_size

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear modules; experts are fused tensors and not among them."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.attention_heads * self.head_size, self.key_value_size
        if self.architecture in _MEGATRON_NAMES:
            gated = 1 if self.architecture == "bloom" else 2
            return {
                "query_key_value": (hidden, queries + 2 * keys),
                "dense": (queries, hidden),
                "dense_h_to_4h": (hidden, gated * inner),
                "dense_4h_to_h": (inner, hidden),
            }
        if self.architecture == "phi3":
            shapes = {"qkv_proj": (hidden, queries + 2 * keys), "o_proj": (queries, hidden)}
        else:
            shapes = {
                "q_proj": (hidden, queries),
                "k_proj": (hidden, keys),
                "v_proj": (hidden, keys),
                "o_proj": (queries, hidden),
            }
        if self.experts:
            return shapes
        if self.architecture in _FUSED_GATE:
            return shapes | {"gate_up_proj": (hidden, 2 * inner), "down_proj": (inner, hidden)}
        return shapes | {
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear modules of all layers: what quantizing makes smaller."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_shapes.values())

    @property
    def layer_parameters(self) -> int:
        """Parameters of one transformer block."""
        hidden, shapes = self.hidden_size, self.linear_shapes
        count = sum(inputs * outputs for inputs, outputs in shapes.values())
        if self.experts:
            count += self.experts * (3 * hidden * self.intermediate_size + hidden)  # experts and their router
        if self.architecture == "bloom":  # biases everywhere
            return count + sum(outputs for _, outputs in shapes.values()) + 4 * hidden
        count += (4 if self.architecture in _FOUR_NORMS else 2) * hidden
        if self.architecture in _QKV_BIAS:
            count += self.attention_heads * self.head_size + 2 * self.key_value_size
        if self.architecture in _QK_NORM:
            count += 2 * self.head_size
        return count

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary_size * self.hidden_size

    @property
    def parameters(self) -> int:
        embeddings = self.embedding_parameters * (1 if self.tie_embeddings else 2)
        norms = 4 if self.architecture == "bloom" else 1  # before the first layer and after the last
        return self.layers * self.layer_parameters + embeddings + norms * self.hidden_size


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
    if architecture == "bloom" and hidden:
        dense_width = 4 * hidden
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
        # Bloom's positions (ALiBi) have no bound; its config tells what it was trained on.
        max_positions=0 if architecture == "bloom" else _size(config, "max_position_embeddings") or 0,
        tie_embeddings=bool(architecture in _TIED_BY_DEFAULT if tied is None else tied),
        experts=experts,
        experts_per_token=_size(config, "num_experts_per_tok") or 0,
    )


def _size(config: Mapping[str, Any], name: str) -> int | None:
    for each in (name, *_OTHER_NAMES.get(name, ())):
        value = config.get(each)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if value is not None:
            return None
    return None
