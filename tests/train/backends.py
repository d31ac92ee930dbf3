"""Small tokenizers of the two common kinds, and what transformers makes of conversations with them."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from artifacts.contract import IGNORED_LABEL
from tests.train.chat_templates import CONVERSATIONS, SPECIAL_TOKENS
from train.data.loading import QWEN2_SPLIT

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}  # pad = eos on purpose


def _corpus() -> list[str]:
    return [message["content"] for messages in CONVERSATIONS.values() for message in messages]


def add_special_tokens(backend: Tokenizer) -> None:
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )


def byte_level_backend() -> Tokenizer:
    """As Llama 3 and Qwen: bytes, offsets trimmed of blanks, and a BOS that only plain texts get."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    add_special_tokens(backend)
    backend.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    bos = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing("<s> $A", None, [bos])]
    )
    return backend


def sentencepiece_backend() -> Tokenizer:
    """As Llama 2: blanks are part of words, one is put before the text, unknown characters fall to bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ascii_text = ["".join(letter for letter in text if letter.isascii()) for text in _corpus()]
    backend.train_from_iterator(
        ascii_text, trainers.BpeTrainer(vocab_size=500, special_tokens=pieces, show_progress=False)
    )
    saved = Tokenizer.from_str(backend.to_str())
    add_special_tokens(saved)
    return saved


BACKENDS = {"byte level": byte_level_backend, "sentencepiece": sentencepiece_backend}


def reference_ids(backend: Tokenizer, template: str, messages: Any, **arguments: Any) -> list[int]:
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, chat_control_tokens=[], **VARIABLES
    )
    return reference.apply_chat_template(
        messages, tokenize=True, sanitize_control_tokens=True, return_dict=False, **arguments
    )


def learnt_texts(backend: Tokenizer, document: Any) -> list[str]:
    """The text of each run of learnt tokens."""
    runs: list[list[int]] = [[]]
    for token, label in zip(document.input_ids.tolist(), document.labels.tolist(), strict=True):
        if label == IGNORED_LABEL:
            runs.append([])
        else:
            assert token == label
            runs[-1].append(token)
    return [backend.decode(run, skip_special_tokens=False) for run in runs if run]
