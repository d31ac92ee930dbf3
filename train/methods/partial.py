"""Methods that train the model's own weights: all, or some of them, or blocks that are appended to it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from artifacts.contract import TrainParams
from train.methods.tokens import Tokens
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: What the modules are called that write a block's results into the residual stream.
_OUTPUTS = ("o_proj", "down_proj", "out_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "wo", "w2")


def apply_full(model: PreTrainedModel, params: TrainParams, new: Tokens) -> PreTrainedModel:
    model.requires_grad_(True)
    return model


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens) -> PreTrainedModel:
    """Train the output head (with tied embeddings: these), the last layers, or appended ones. Trained weights
    are held in float32. Raises StageUserError."""
    chosen = params.partial
    assert chosen is not None, "the plan sets partial for method partial"
    model.requires_grad_(False)
    for module in _trained(model, params):
        module.requires_grad_(True)
        for parameter in module.parameters():
            if not hasattr(parameter, "ds_id"):  # DeepSpeed keeps float32 copies of its own
                parameter.data = parameter.data.float()
    return model


def _trained(model: PreTrainedModel, params: TrainParams) -> Iterator[nn.Module]:
    chosen = params.partial
    assert chosen is not None
    if chosen.head:
        head = model.get_output_embeddings()
        if head is None:
            raise StageUserError(f"{type(model).__name__} has no output head", "train last_layers instead")
        yield head
    if chosen.extra_layers:
        yield from append_layers(model, chosen.extra_layers)
    if chosen.last_layers:
        layers = decoder_layers(model)
        if chosen.last_layers > len(layers):
            raise StageUserError(
                f"the model has {len(layers)} layers, method.last_layers is {chosen.last_layers}",
                f"set it to {len(layers)} or fewer",
            )
        yield from layers[-chosen.last_layers :]


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's blocks. Raises StageUserError where they can't be told."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and len({*map(type, module)}) == 1:
            return module
    raise StageUserError(
        f"{type(model).__name__} has no list of {count} equal layers", "use method lora or full"
    )


def append_layers(model: PreTrainedModel, count: int) -> Iterator[nn.Module]:
    """Append `count` copies of the last layer whose output projections are zero, so that each passes on what
    it gets until it has learnt something (https://arxiv.org/abs/2401.02415); and say so in the model's
    configuration, from which plain transformers builds the grown model. Yields the new layers."""
    from peft.utils.integrations import gather_params_ctx

    layers = decoder_layers(model)
    last, length = layers[-1], len(layers)
    with gather_params_ctx(list(last.parameters()), modifier_rank=None):
        for index in range(length, length + count):
            layer = _copied(last, index)
            _silence(layer)
            layers.append(layer)
    grow_config(model.config, count)
    yield from layers[length:]


def _copied(layer: nn.Module, index: int) -> nn.Module:
    """A copy of whole, plain parameters, as layer number `index`."""
    memo = {
        id(parameter): nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        for parameter in layer.parameters()
    }
    copied = copy.deepcopy(layer, memo)
    for module in copied.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = index
    return copied


@torch.no_grad()
def _silence(layer: nn.Module) -> None:
    silenced = 0
    for name, parameter in layer.named_parameters():
        if set(name.split(".")[-2:]) & set(_OUTPUTS):
            parameter.zero_()
            silenced += 1
    if silenced < 2:  # of attention and of the feed-forward network
        raise StageUserError(
            f"extra_layers does not know the output projections of {type(layer).__name__}",
            "train last_layers instead",
        )


def grow_config(config: Any, count: int) -> None:
    """Raise the number of layers, and repeat the last entry of every list that has one per layer."""
    text = config.get_text_config()
    length = text.num_hidden_layers
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == length and re.search("layer", name):
            setattr(text, name, value + value[-1:] * count)
    text.num_hidden_layers = length + count
