"""Tiny twins: models of a real architecture with random weights, made on the spot.

`make_twin` writes one without importing torch: its tokenizer is trained on the job's own data.
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
from train.twin_architectures import ARCHITECTURES

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
    architecture = ARCHITECTURES[params.architecture]
    return {
        "architectures": [architecture.model_class],
        "model_type": params.architecture,
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": params.hidden_size,
        **architecture.config(params),
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
    """The state dict: matrices normal with std `initializer_range`, norms and biases as they start in
    transformers."""
    random = np.random.default_rng(seed)
    std = np.float32(config["initializer_range"])
    architecture = ARCHITECTURES[config["model_type"]]
    for name, shape in architecture.shapes(config).items():
        if len(shape) > 1:
            yield name, random.standard_normal(shape, np.float32) * std
        else:
            start = 0.0 if name.endswith(".bias") else architecture.norm_start
            yield name, np.full(shape, start, np.float32)


def _beginning(texts: Iterable[str]) -> Iterator[str]:
    left = TRAINING_CHARACTERS
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
