"""Whether a model can be quantized as asked, said before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.stage import StageUserError

#: Numbers are packed into words of 32 bits, along either side of a weight, in runs of this many.
PACKED = 32
GROUP_SIZES = (256, 128, 64, 32)
#: How configurations tell of experts.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

Shapes = Mapping[str, tuple[int, int]]  # of linear layers, by name: input and output channels


def check_model(folder: Path, config: Any) -> None:
    """Raises StageUserError for a model of the configuration `config` that is no plain dense one."""
    if getattr(config, "quantization_config", None):
        raise StageUserError("the model is quantized already", "name the unquantized one")
    if any(getattr(config.get_text_config(), name, None) for name in _EXPERTS):
        raise StageUserError(
            f"a mixture of experts ({config.model_type}) can't be quantized here: transformers holds its "
            "experts in one tensor, GPTQ's files each for itself",
            "leave quantize out",
        )
    if not any(folder.glob("*.safetensors")):
        raise StageUserError(
            f"{folder} holds no safetensors", "save the model with transformers' save_pretrained"
        )


def check_shapes(shapes: Shapes, group_size: int) -> None:
    """Raises StageUserError for the first layer that groups of `group_size` input channels (-1: all) don't
    divide, or that can't be packed at all."""
    for name, shape in shapes.items():
        for channels, side in zip(shape, ("input", "output"), strict=True):
            if channels % PACKED:
                raise StageUserError(
                    f"{name} has {channels} {side} channels, which GPTQ can't pack: not a multiple of {PACKED}",
                    "leave quantize out",
                )
    for name, (inputs, _) in shapes.items():
        if group_size > 0 and inputs % group_size:
            fitting = [str(size) for size in fitting_group_sizes(shapes)]
            raise StageUserError(
                f"{name} has {inputs} input channels, which groups of {group_size} don't divide",
                f"set quantize.group_size to {' or '.join([*fitting, '-1'])}",
            )


def fitting_group_sizes(shapes: Shapes) -> list[int]:
    """The largest first."""
    return [size for size in GROUP_SIZES if all(inputs % size == 0 for inputs, _ in shapes.values())]


def linear_shapes(config: Any, *, trust_remote_code: bool) -> dict[str, tuple[int, int]]:
    """The linear layers of the model's blocks, without its weights."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    shapes = {}
    for name, module in model.named_modules():
        if not any(part.isdigit() for part in name.split(".")):  # in no block: embeddings, output head
            continue
        if isinstance(module, nn.Linear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.nx, module.nf)
    return shapes
