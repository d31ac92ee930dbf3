"""Frozen bases in 4 or 8 bits: how they are loaded, and what their linear layers are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from artifacts.contract import Quantization, TrainParams
from train.dtypes import DTYPES
from train.quantizing.kernels import loading_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def config(params: TrainParams, model: Path | None = None) -> Any:
    """What `from_pretrained` is to quantize the weights by, or, for a GPTQ base in the folder `model`, which
    kernel to use; None for a base that is used as it is."""
    if params.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    if params.quantization == "nf4":  # QLoRA, https://arxiv.org/abs/2305.14314
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[params.precision],
            # FSDP splits tensors of one type alone: bytes go in the wrapping of the other weights'
            # (huggingface/accelerate#3983).
            bnb_4bit_quant_storage=DTYPES[params.precision] if params.strategy == "fsdp" else torch.uint8,
        )
    if params.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    assert model is not None, "a GPTQ base says itself how it was quantized"
    stored = json.loads((model / "config.json").read_bytes())["quantization_config"]
    return loading_config(stored)


def keep_trainable(model: PreTrainedModel) -> None:
    """Have no evaluation change how weights are held: on some CPUs bitsandbytes repacks those of 4 bits at
    the first forward pass without gradients, and passes none on from then on."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def of_model(model: PreTrainedModel) -> Quantization:
    """How the loaded model is quantized."""
    stored = getattr(model.config, "quantization_config", None)
    if stored is None:
        return "none"
    described = stored if isinstance(stored, dict) else stored.to_dict()
    if described.get("quant_method") == "gptq":
        return "gptq"
    return "int8" if described.get("load_in_8bit") else "nf4"


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last names of the linear layers but the output head, as the architecture has them: a GPTQ layer isn't a
    linear one any more."""
    with torch.device("meta"):
        plain = type(model)._from_config(_unquantized(model.config))
    head = plain.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in plain.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    )


def _unquantized(config: Any) -> Any:
    described = {name: value for name, value in config.to_dict().items() if name != "quantization_config"}
    return type(config).from_dict(described)
