"""Architectures that twins are made of: their config.json and the shapes of their weights, as transformers
5.23 names them (`models/<model_type>/`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.contract import TwinParams

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`config`: the fields beside vocabulary, width and token ids. `shapes`: those of every saved tensor."""

    model_class: str
    config: Callable[[TwinParams], dict[str, Any]]
    shapes: Callable[[Mapping[str, Any]], Shapes]
    norm_start: float = 1.0  # Gemma's norms multiply by 1 + weight


def _llama_config(params: TwinParams, **more: Any) -> dict[str, Any]:
    return {
        "intermediate_size": params.intermediate_size,
        "num_hidden_layers": params.layers,
        "num_attention_heads": params.attention_heads,
        "num_key_value_heads": params.key_value_heads,
        "head_dim": params.hidden_size // params.attention_heads,
        "hidden_act": "silu",
        "max_position_embeddings": params.max_positions,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "attention_dropout": 0.0,
        **more,
    }


def _llama_shapes(
    config: Mapping[str, Any],
    *,
    query_key_norms: bool = False,
    biases: bool = False,
    fused_gate: bool = False,
) -> Shapes:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer: Shapes = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
    }
    if fused_gate:
        layer["mlp.gate_up_proj.weight"] = (2 * inner, hidden)
    else:
        layer |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden)}
    layer["mlp.down_proj.weight"] = (hidden, inner)
    if query_key_norms:
        layer |= {f"self_attn.{name}_norm.weight": (config["head_dim"],) for name in ("q", "k")}
    if biases:
        layer |= {
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.bias": (keys,),
        }
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _bloom_config(params: TwinParams) -> dict[str, Any]:
    """Positions by ALiBi, so without a bound; one key head a query head and an MLP of 4 × the width."""
    return {
        "n_layer": params.layers,
        "n_head": params.attention_heads,
        "layer_norm_epsilon": 1e-5,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    }


def _bloom_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    linear = {
        "self_attention.query_key_value": (3 * hidden, hidden),
        "self_attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (4 * hidden, hidden),
        "mlp.dense_4h_to_h": (hidden, 4 * hidden),
    }
    norms = ("input_layernorm", "post_attention_layernorm")
    layer: Shapes = {f"{name}.weight": shape for name, shape in linear.items()}
    layer |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    layer |= {f"{name}.{part}": (hidden,) for name in norms for part in ("weight", "bias")}
    shapes: Shapes = {"transformer.word_embeddings.weight": (config["vocab_size"], hidden)}
    for number in range(config["n_layer"]):
        shapes |= {f"transformer.h.{number}.{name}": shape for name, shape in layer.items()}
    for name in ("word_embeddings_layernorm", "ln_f"):
        shapes |= {f"transformer.{name}.{part}": (hidden,) for part in ("weight", "bias")}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


#: By config.json's `model_type`.
ARCHITECTURES = {
    "qwen3": Architecture(
        model_class="Qwen3ForCausalLM",
        config=_llama_config,
        shapes=lambda config: _llama_shapes(config, query_key_norms=True),
    ),
    "qwen2": Architecture(
        model_class="Qwen2ForCausalLM",
        config=_llama_config,
        shapes=lambda config: _llama_shapes(config, biases=True),
    ),
    "llama": Architecture(model_class="LlamaForCausalLM", config=_llama_config, shapes=_llama_shapes),
    "mistral": Architecture(
        model_class="MistralForCausalLM",
        config=lambda params: _llama_config(params, sliding_window=None),
        shapes=_llama_shapes,
    ),
    "gemma": Architecture(
        model_class="GemmaForCausalLM",
        config=lambda params: _llama_config(params, hidden_act="gelu_pytorch_tanh"),
        shapes=_llama_shapes,
        norm_start=0.0,
    ),
    "glm": Architecture(
        model_class="GlmForCausalLM",
        config=lambda params: _llama_config(
            params,
            attention_bias=True,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        ),
        shapes=lambda config: _llama_shapes(config, biases=True, fused_gate=True),
    ),
    "bloom": Architecture(model_class="BloomForCausalLM", config=_bloom_config, shapes=_bloom_shapes),
}
