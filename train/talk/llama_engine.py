"""Answers by llama.cpp: a GGUF file."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from train.asking import available_memory_bytes
from train.data.loading import load_chat_tokenizer
from train.data.templates import TemplateError
from train.processes import available_cores
from train.stage import StageUserError
from train.talk import generation
from train.talk.encoding import TokenizerFolder
from train.talk.engine import Message, Piece, PromptError, Sampling, Source
from train.talk.gguf_tokens import GgufTokens

#: Share of the free memory that the KV cache may take: llama.cpp reserves it for the whole context.
_CACHE_SHARE = 0.25
_CACHE_BYTES = 2  # of one of its numbers: f16
_SHORTEST_CONTEXT = 2048


class LlamaEngine:
    """`train.talk.engine.Engine` around a GGUF file. With a tokenizer folder prompts are written as in
    training, else by the file's own tokenizer and template. Raises StageUserError."""

    def __init__(self, source: Source, file: Path, device: str | None) -> None:
        self.source = source
        self._model = CachingLlama(file, on_gpu=device != "cpu" and llama_cpp.llama_supports_gpu_offload())
        self.context_length = self._model.context_length
        self.description = self._model.description
        try:
            own = GgufTokens(self._model.model)
        except TemplateError as error:
            raise StageUserError(f"{file}: its chat template can't be used: {error}") from error
        self._tokens: TokenizerFolder | GgufTokens = own
        if source.tokenizer is not None:
            chat = load_chat_tokenizer(source.tokenizer, trust_remote_code=source.trust_remote_code)
            self._tokens = TokenizerFolder(chat, own.stop_ids)

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None = None) -> list[int]:
        return self._tokens.encode_chat(messages, tools)

    def encode_text(self, text: str) -> list[int]:
        return self._tokens.encode_text(text)

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        return generation.answer(
            self._model,
            prompt,
            sampling,
            context_length=self.context_length,
            decoder=self._tokens.decoder(),
            stop_ids=self._tokens.stop_ids,
            stops=self._tokens.stops,
        )

    def close(self) -> None:
        self._model.close()


class CachingLlama:
    """`train.talk.generation.TokenModel` by llama.cpp's C interface. Raises StageUserError for a file that
    can't be loaded."""

    def __init__(self, file: Path, *, on_gpu: bool) -> None:
        _start()
        _complaints.clear()
        self.context: Any = None
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = -1 if on_gpu else 0
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self.model:
            raise StageUserError(f"{file}: llama.cpp can't load it{_complaint()}")
        trained = llama_cpp.llama_model_n_ctx_train(self.model)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = context_tokens(trained, _cache_bytes_per_token(self.model), available_memory_bytes())
        options.n_batch = options.n_ubatch = generation.CHUNK_TOKENS
        if not on_gpu:  # where it sums in f16: logits would hang on what is in the cache
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.n_threads = options.n_threads_batch = available_cores()
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            self.close()
            raise StageUserError(f"{file}: llama.cpp has no room for its context{_complaint()}")
        self._memory = llama_cpp.llama_get_memory(self.context)
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.context_length = min(trained, llama_cpp.llama_n_ctx(self.context))
        self.description = f"llama.cpp, {_describe(self.model)}, {'gpu' if on_gpu else 'cpu'}"
        self.read: list[int] = []

    def keep(self, count: int) -> None:
        if count < len(self.read):
            if not llama_cpp.llama_memory_seq_rm(self._memory, 0, count, -1):  # a recurrent state
                llama_cpp.llama_memory_clear(self._memory, True)
                count = 0
            del self.read[count:]

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        for token in tokens:
            if not 0 <= token < self._vocabulary_size:  # llama.cpp would abort the process
                raise PromptError(f"token {token} is none of the file's {self._vocabulary_size:,}")
        _complaints.clear()
        batch = (llama_cpp.llama_token * len(tokens))(*tokens)
        try:
            code = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(batch, len(tokens)))
        except BaseException:
            self.keep(0)
            raise
        if code != 0:
            self.keep(0)
            raise PromptError(f"llama.cpp could not read the prompt (code {code}){_complaint()}")
        self.read += tokens
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, shape=(self._vocabulary_size,)).copy()

    def close(self) -> None:
        if self.context:
            llama_cpp.llama_free(self.context)
        if self.model:
            llama_cpp.llama_model_free(self.model)
        self.context = self.model = None


def context_tokens(trained: int, bytes_per_token: int, free_bytes: int) -> int:
    """What the model was trained on, halved until the cache of so many tokens takes no more than its share of
    the free memory; at least 2,048."""
    tokens = trained
    while tokens > _SHORTEST_CONTEXT and tokens * bytes_per_token > free_bytes * _CACHE_SHARE:
        tokens //= 2
    return max(tokens, min(trained, _SHORTEST_CONTEXT))


def _cache_bytes_per_token(model: Any) -> int:
    """Keys and values of all layers."""
    heads = llama_cpp.llama_model_n_head(model) or 1
    width = llama_cpp.llama_model_n_embd(model) // heads * llama_cpp.llama_model_n_head_kv(model)
    return 2 * _CACHE_BYTES * width * llama_cpp.llama_model_n_layer(model)


def _describe(model: Any) -> str:
    """As `qwen2 7B Q4_K - Medium`, without a size that llama.cpp has no name for (`?B`)."""
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(model, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace").replace(" ?B", "")


_ERROR_LEVEL = 4  # ggml.h, GGML_LOG_LEVEL_ERROR
#: What llama.cpp has complained of since the last call that may fail began.
_complaints: list[str] = []


@llama_cpp.llama_log_callback
def _log(level: int, text: bytes, _: Any) -> None:
    if level == _ERROR_LEVEL:
        _complaints.append(text.decode("utf-8", "replace").strip())


@functools.cache
def _start() -> None:
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def _complaint() -> str:
    """The first names the cause; those behind it only how it was passed on."""
    return f": {_complaints[0]}" if _complaints else ""
