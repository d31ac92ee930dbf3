"""Whether a model can be quantized as asked, said before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.gptq import Shapes, misfit
from train.stage import StageUserError

#: How configurations tell of experts.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


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
    """Raises StageUserError for layers that can't be packed, or not in groups of that many input channels."""
    if found := misfit(shapes, group_size):
        raise StageUserError(found.why, found.way_out)


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
