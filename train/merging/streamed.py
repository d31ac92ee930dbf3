"""A model whose weights are read from its files module by module while it computes, and given back at once:
its memory is that of its largest module, whatever the model's size.

Everything is computed in float32: what a weight is stored in decides its value, not how it is computed with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from train.merging.adapter import read_adapter, read_config
from train.merging.tensors import TORCH_DTYPES, Memory, StoredTensor, model_tensors


class NotStreamableError(Exception):
    """The model's parameters are not the tensors of its files, one by one: it has to be loaded as a whole."""


def open_model(folder: Path, adapter: Path | None = None, *, trust_remote_code: bool = False) -> Any:
    """The causal language model in `folder`, in evaluation mode, with the PEFT `adapter` beside its weights.

    Raises NotStreamableError, and StageUserError for a folder that is broken.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, local_files_only=True, **trust)
    with init_empty_weights(include_buffers=False):  # buffers are computed, as rotary frequencies are
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **trust)
    model.tie_weights()
    if adapter is None:
        _hollow(model)
        stored = _stored(model, model_tensors(folder))
    else:
        from train.methods import load_adapter, tokens

        tokens.make_room(model, adapter)
        whole = _held_whole(adapter)
        _hollow(model, whole)
        stored = _stored(model, model_tensors(folder), whole)
        model = load_adapter(model, adapter)
    memory = Memory()
    for module, places in _units(model, stored):
        _read_as_needed(module, places, stored, memory)
    return model.eval()


def _hollow(model: nn.Module, whole: Collection[str] = ()) -> None:
    """Give the parameters values that take no memory, one zero at every place: unlike those of the device
    `meta` they can be read, as PEFT does to start adapters from them. What is tied stays tied. Those that the
    adapter holds `whole` are for PEFT to fill."""
    real = {id(parameter) for name, parameter in _parameters(model) if name in whole}
    values: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in values:
                shape = parameter.shape
                value = torch.zeros(shape) if id(parameter) in real else torch.zeros(()).expand(shape)
                values[id(parameter)] = nn.Parameter(value, requires_grad=False)
            module._parameters[name] = values[id(parameter)]


def _held_whole(adapter: Path) -> set[str]:
    """The base's tensors that PEFT replaces in their place: biases, and an embedding or head that was saved
    beside its adapter. Modules to save are copies beside the base's."""
    copies = [f".{name}." for name in read_config(adapter).get("modules_to_save") or ()]
    return {
        name for name in read_adapter(adapter).replacements if not any(copy in f".{name}" for copy in copies)
    }


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """By all their names."""
    return model.named_parameters(remove_duplicate=False)


def _stored(
    model: Any, files: Mapping[str, StoredTensor], whole: Collection[str] = ()
) -> dict[int, StoredTensor]:
    """Where each of the model's parameters lies, by its id, but for those that the adapter holds `whole`.
    Buffers that are saved are read here."""
    prefix = f"{model.base_model_prefix}."

    def of(name: str) -> StoredTensor | None:
        return files.get(name) or files.get(name.removeprefix(prefix))

    held = {id(parameter) for name, parameter in _parameters(model) if name in whole}
    found = {
        id(parameter): tensor
        for name, parameter in _parameters(model)
        if id(parameter) not in held and (tensor := of(name)) is not None
    }
    for name, parameter in model.named_parameters():
        if id(parameter) in held:
            continue
        tensor = found.get(id(parameter))
        if tensor is None or tensor.dtype not in TORCH_DTYPES or not _fits(tensor.shape, parameter.shape):
            raise NotStreamableError(name)
    for name, buffer in model.named_buffers():
        if (tensor := of(name)) is not None:
            buffer.copy_(tensor.read())
    return found


def _fits(stored: tuple[int, ...], wanted: torch.Size) -> bool:
    """An embedding that was grown for new tokens has more rows than its file."""
    return stored[1:] == tuple(wanted[1:]) and stored[0] <= wanted[0]


class _Place(NamedTuple):
    """A hollow parameter, and the module that has it."""

    module: nn.Module
    name: str
    parameter: nn.Parameter


def _units(model: nn.Module, stored: Mapping[int, StoredTensor]) -> Iterator[tuple[nn.Module, list[_Place]]]:
    """The modules that compute with stored weights, and those weights. PEFT's layers use those of the layers
    that they stand for, too."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    whole = isinstance(model, BaseTunerLayer | AuxiliaryTrainingWrapper)
    places = [
        _Place(module, name, parameter)
        for module in (model.modules() if whole else [model])
        for name, parameter in module._parameters.items()
        if id(parameter) in stored
    ]
    if places:
        yield model, places
    if not whole:
        for child in model.children():
            yield from _units(child, stored)


def _read_as_needed(
    module: nn.Module, places: list[_Place], stored: Mapping[int, StoredTensor], memory: Memory
) -> None:
    def read(*_: Any) -> None:
        for place in places:
            value = _value(stored[id(place.parameter)], place.parameter.shape, memory)
            place.module._parameters[place.name] = nn.Parameter(value, requires_grad=False)

    def free(*_: Any) -> None:
        for place in places:
            place.module._parameters[place.name] = place.parameter

    module.register_forward_pre_hook(read)
    module.register_forward_hook(free)


def _value(tensor: StoredTensor, shape: torch.Size, memory: Memory) -> torch.Tensor:
    """In float32; rows that the file does not have are zeros, which an adapter brings values for."""
    value = torch.zeros(shape) if tensor.shape[0] < shape[0] else torch.empty(shape)
    value[: tensor.shape[0]] = tensor.read(memory.take("stored", tensor.size_bytes))
    return value
