"""Answers by transformers: a model folder of any precision or GPTQ, with or without a PEFT adapter."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from artifacts.contract import Precision
from train import lean_peft
from train.answering import make_room
from train.data.loading import load_chat_tokenizer
from train.dtypes import DTYPES
from train.processes import available_cores
from train.quantizing.kernels import loading_config
from train.stage import StageUserError
from train.talk import generation
from train.talk.encoding import TokenizerFolder
from train.talk.engine import Message, Piece, PromptError, Sampling, Source

#: Where a configuration names no limit (ALiBi).
_DEFAULT_CONTEXT = 2048


class TransformersEngine:
    """`train.talk.engine.Engine` around a model in this process."""

    def __init__(self, source: Source, device: str | None, precision: Precision | Literal["auto"]) -> None:
        assert source.folder is not None
        self.source = source
        self._device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        if self._device == "cpu":
            torch.set_num_threads(available_cores())
        chat = load_chat_tokenizer(
            source.tokenizer or source.folder, trust_remote_code=source.trust_remote_code
        )
        precision = fast_precision(self._device) if precision == "auto" else precision
        model = load_model(source, self._device, precision)
        make_room(model, chat, sharded=False)
        declared = model.generation_config.eos_token_id
        self._tokens = TokenizerFolder(chat, [declared] if isinstance(declared, int) else declared or [])
        if source.adapter is not None:
            model = with_adapter(model, source.adapter)
        self._model = CachingModel(model, self._device)
        config = model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None) or _DEFAULT_CONTEXT
        self.context_length = longest - self._model.virtual_tokens
        self.description = described(model, self._device)

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
        del self._model
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()


class CachingModel:
    """`train.talk.generation.TokenModel` of a model with its cache. Virtual tokens in front (prefix, prompt
    and P-tuning) stay in the cache for good: behind them the model is asked as any other."""

    def __init__(self, model: Any, device: str) -> None:
        self._adapted, self._device = model, device
        self._prompted = hasattr(model, "peft_config") and model.active_peft_config.is_prompt_learning
        self._model = model.get_base_model() if self._prompted else model
        from train.loss import slices_logits  # brings transformers, which `lean_peft` goes before

        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._options = {"logits_to_keep": 1} if slices_logits(base) else {}
        self.virtual_tokens = model.active_peft_config.num_virtual_tokens if self._prompted else 0
        self.read: list[int] = []
        self._cache: Any = None

    def keep(self, count: int) -> None:
        forgotten = len(self.read) - count
        if not forgotten:
            return
        try:
            self._cache.crop(-forgotten)
            del self.read[count:]
        except (RuntimeError, AttributeError):  # a sliding window or a recurrent state: not to be had back
            self._forget()

    @torch.inference_mode()
    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        if self._cache is None:
            self._cache = self._new_cache()
        ids = torch.tensor([list(tokens)], device=self._device)
        try:
            output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **self._options)
        except BaseException as error:  # given up halfway: some layers have read the tokens, others not
            self._forget()
            if isinstance(error, torch.OutOfMemoryError):
                raise PromptError(f"{self._device} has no memory left for so long a conversation") from error
            raise
        self._cache = output.past_key_values
        self.read += tokens
        return output.logits[0, -1].float().cpu().numpy()

    def _forget(self) -> None:
        self._cache, self.read = None, []

    def _new_cache(self) -> Any:
        """Empty but for the virtual tokens."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config.get_text_config())
        if not self._prompted:
            return cache
        prompt = self._adapted.get_prompt(batch_size=1)
        if not torch.is_tensor(prompt):  # keys and values of each layer
            return prompt
        embeddings = prompt.to(self._device, self._model.get_input_embeddings().weight.dtype)
        return self._model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).past_key_values


def load_model(source: Source, device: str, precision: Precision) -> Any:
    """The model of `source.folder`. Raises StageUserError."""
    config = read_config(source.folder)
    quantized = config.get("quantization_config") or {}
    is_gptq = quantized.get("quant_method") == "gptq"
    lean_peft.prepare("gptq" if is_gptq else "none")
    if is_gptq:
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(available_cores()))
    from transformers import AutoModelForCausalLM

    # On a GPU gptqmodel's own choice is the fastest; on cores it would compile for a minute.
    kernel = {"quantization_config": loading_config(quantized)} if is_gptq and device == "cpu" else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.folder,
            dtype=DTYPES[precision],
            device_map=device if quantized else None,
            **kernel,
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise StageUserError(f"{source.folder}: the model can't be loaded: {cause}") from error
    return (model if quantized else model.to(device)).eval()


def with_adapter(model: Any, adapter: Path) -> Any:
    """Raises StageUserError for an adapter that does not fit."""
    from train.methods import load_adapter

    try:
        return load_adapter(model, adapter).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise StageUserError(f"{adapter}: the adapter does not fit the base model: {cause}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Raises StageUserError for a folder without a model."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageUserError(f"{folder}: is no model folder: its config.json can't be read") from error


def fast_precision(device: str) -> Precision:
    """bf16 where the device computes fast in it: NVIDIA's from Ampere on, cores with AVX512-BF16 or AMX."""
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def described(model: Any, device: str) -> str:
    """What computes, for people: `gptq 4 bit, bfloat16, cuda:0`."""
    config = getattr(model.config, "quantization_config", None)
    stored = {} if config is None else config if isinstance(config, dict) else config.to_dict()
    method = stored.get("quant_method")
    kind = f"{getattr(method, 'value', method)} {stored.get('bits', '')} bit, " if method else ""
    return f"{kind}{str(model.dtype).removeprefix('torch.')}, {device}"
