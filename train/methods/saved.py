"""What is written of an adapter: tensors and configuration as PEFT lays them out, from the whole trained
weights, which sharded models do not hold."""

from __future__ import annotations

import math
from typing import Any

import torch

from train.methods import start

Tensors = dict[str, torch.Tensor]


def layout(model: Any, weights: Tensors, *, for_base: bool) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and configuration of the PEFT `model` whose trained parameters are `weights`. `for_base`: of an
    adapter that goes with the base as it is on disk, where training began with another split of its weights
    between base and adapter (`train.methods.start`)."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"]
    described = config.to_dict()
    if config.is_prompt_learning:
        return {"prompt_embeddings": prompt_embeddings(config, weights)}, described
    at_start: Tensors = getattr(model, start.ATTRIBUTE, {})
    if for_base and at_start:
        weights = start.without(weights, at_start)
        described |= {
            "r": 2 * config.r,
            "lora_alpha": config.lora_alpha * (math.sqrt(2) if config.use_rslora else 2),
            "init_lora_weights": True,
        }
    return get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False), described


@torch.no_grad()
def prompt_embeddings(config: Any, weights: Tensors) -> torch.Tensor:
    """What the prompt encoder makes of its trained weights: (virtual tokens, width)."""
    parts = {name.partition("prompt_encoder.default.")[2]: value for name, value in weights.items()}
    prompts = parts["embedding.weight"]
    if "transform.0.weight" not in parts:
        return prompts
    hidden = torch.tanh(
        torch.nn.functional.linear(prompts, parts["transform.0.weight"], parts["transform.0.bias"])
    )
    return torch.nn.functional.linear(hidden, parts["transform.2.weight"], parts["transform.2.bias"])
