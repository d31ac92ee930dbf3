"""Adapters that do not start at zero: PiSSA and OLoRA take part of the base's weights out into the adapter,
LoftQ makes up in it for what quantization loses. Saved, they become plain ones for the base as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from train.stage import StageUserError

Tensors = dict[str, torch.Tensor]

#: Attribute of a model: its adapters at the start by name, whole, on the host.
ATTRIBUTE = "adapters_at_start"


def remember(adapted: Any) -> None:
    """Keep the adapters as they are now, to be taken out again by `without`."""
    start = {name: p.detach().cpu().clone() for name, p in adapted.named_parameters() if ".lora_" in name}
    setattr(adapted, ATTRIBUTE, start)


def without(weights: Tensors, start: Tensors) -> Tensors:
    """Adapters of twice the rank whose product is what was learnt since the `start`: BA - B0A0 = [B -B0][A;
    A0]. As PEFT's `LoraModel.subtract_mutated_init`."""
    converted = dict(weights)
    for name, value in weights.items():
        if ".lora_A." in name:
            converted[name] = torch.cat([value, start[name].to(value)], dim=0)
        elif ".lora_B." in name:
            converted[name] = torch.cat([value, -start[name].to(value)], dim=1)
    return converted


@torch.no_grad()
def compensate_quantization(adapted: Any, base: Path) -> None:
    """LoftQ (https://arxiv.org/abs/2310.08659) for a base in 4 bits: `scaling * B @ A` becomes the best
    approximation of what quantization lost. PEFT's `replace_lora_weights_loftq` needs CUDA and takes the
    scaling for 1.

    `base`: the folder with the weights as they were. Raises StageUserError where it lacks one.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit

    from train.merging.tensors import model_tensors

    stored = model_tensors(base)
    for name, module in adapted.get_base_model().named_modules():
        if not isinstance(module, Linear4bit):
            continue
        if f"{name}.weight" not in stored:
            raise StageUserError(
                f"{base} does not have {name}.weight, by which LoftQ would start", "leave method.init out"
            )
        quantized = module.get_base_layer().weight
        held = dequantize_4bit(quantized.data, quantized.quant_state).float()
        lost = stored[f"{name}.weight"].read().to(held) - held
        left, strengths, right = torch.linalg.svd(lost, full_matrices=False)
        rank = module.r["default"]
        root = torch.sqrt(strengths[:rank] / module.scaling["default"])
        module.lora_B["default"].weight.copy_(left[:, :rank] * root)
        module.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
