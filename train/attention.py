"""Which attention kernel a training runs on."""

from __future__ import annotations

from typing import Any

import torch

from artifacts.contract import TrainParams
from train.stage import StageUserError

#: Compute capability that a kernel needs. https://github.com/Dao-AILab/flash-attention#installation-and-features
_CAPABILITY = {"flash_attention_3": (9, 0), "flash_attention_2": (8, 0)}
FLASH = tuple(_CAPABILITY)  # best first


def choose(params: TrainParams, *, on_gpu: bool) -> str | None:
    """The kernel that the job names, or the best that is here; None leaves it to transformers (sdpa, where
    the architecture has that, else eager). Raises StageUserError where the named one can't run here."""
    if params.attention in ("sdpa", "eager"):
        return params.attention
    if params.attention == "auto":
        return next((kernel for kernel in FLASH if not _hindrance(kernel, params, on_gpu=on_gpu)), None)
    if hindrance := _hindrance(params.attention, params, on_gpu=on_gpu):
        raise StageUserError(
            f"{params.attention} can't run here: {hindrance}",
            "set training.attention to auto, for the best that can",
        )
    return params.attention


def _hindrance(kernel: str, params: TrainParams, *, on_gpu: bool) -> str:
    """Why flash attention can't run here, or nothing."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if not on_gpu:
        return "it needs a GPU"
    if params.precision == "fp32":
        return "it knows no float32"
    needed, found = _CAPABILITY[kernel], torch.cuda.get_device_capability()
    # Version 3 is written for Hopper alone.
    if found < needed or (kernel == "flash_attention_3" and found[0] != needed[0]):
        return f"it needs compute capability {needed[0]}.{needed[1]}, the GPU has {found[0]}.{found[1]}"
    installed = {
        "flash_attention_2": is_flash_attn_2_available,
        "flash_attention_3": is_flash_attn_3_available,
    }
    return "" if installed[kernel]() else "it is not installed"


def used_by(model: Any) -> str:
    return model.config.get_text_config()._attn_implementation


def may_flatten(model: Any, *, trust_remote_code: bool) -> bool:
    """Whether rows of a batch may be put one behind the other: flash attention keeps them apart by their
    position ids, as it does packed documents, in architectures that are known to look at these."""
    from train.data.isolation import KNOWN_ISOLATED

    return used_by(model) in FLASH and not trust_remote_code and type(model).__name__ in KNOWN_ISOLATED
