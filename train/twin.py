"""Tiny twins: models of a real architecture with random weights, made on the spot.

`make_twin` writes a Qwen3 or Llama without importing torch: its tokenizer is trained on the job's own data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from artifacts.contract import TwinParams
from train.data.loading import QWEN2_SPLIT

ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}

PAD_TOKEN, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

#: ChatML, as Qwen writes it (without a default system message).
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TRAINING_CHARACTERS = 16_000_000  # of text, from the beginning: plenty for a small vocabulary


def make_twin(params: TwinParams, texts: Iterable[str]) -> dict[str, bytes]:
    """The files of a twin by name. Equal parameters and texts give equal bytes."""
    tokenizer = train_tokenizer(texts, params.vocabulary_size)
    config = twin_config(params, tokenizer)
    generation = {name: config[name] for name in ("eos_token_id", "pad_token_id")} | {"do_sample": False}
    tokenizer_config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": TURN_END,
        "pad_token": PAD_TOKEN,
        "bos_token": None,
        "model_max_length": params.max_positions,
        # How the text is split before the merges. A converter knows real models by their vocabulary; a twin
        # says it.
        "pre_tokenizer": "qwen2",
    }
    weights = safetensors.numpy.save(dict(random_weights(config, params.seed)), metadata={"format": "pt"})
    return {
        "config.json": _json(config),
        "generation_config.json": _json(generation),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(tokenizer_config),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "model.safetensors": weights,
    }


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary_size` tokens, special ones included, split as Qwen2 splits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD_TOKEN, TURN_START, TURN_END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_beginning(texts), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def twin_config(params: TwinParams, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json of the architecture with the twin's dimensions."""
    return {
        "architectures": [ARCHITECTURES[params.architecture]],
        "model_type": params.architecture,
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": params.hidden_size,
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
        "tie_word_embeddings": params.tie_embeddings,
        # Keeps the variance of activations and lets logits grow beyond a few: 0.02 is for wide models.
        "initializer_range": params.hidden_size**-0.5,
        "dtype": "float32",
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "pad_token_id": tokenizer.token_to_id(PAD_TOKEN),
    }


def random_weights(config: dict[str, Any], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """The state dict of a Qwen3 or Llama: matrices normal with std `initializer_range`, norms 1."""
    random = np.random.default_rng(seed)
    std = np.float32(config["initializer_range"])
    for name, shape in weight_shapes(config).items():
        if len(shape) == 1:
            yield name, np.ones(shape, np.float32)
        else:
            yield name, random.standard_normal(shape, np.float32) * std


def weight_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, as transformers' `Qwen3ForCausalLM` and `LlamaForCausalLM` have them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    if config["model_type"] == "qwen3":
        layer |= {"self_attn.q_norm": (config["head_dim"],), "self_attn.k_norm": (config["head_dim"],)}
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def _beginning(texts: Iterable[str]) -> Iterator[str]:
    left = TRAINING_CHARACTERS
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
