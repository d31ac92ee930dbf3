"""Trained weights out of the ranks into files: an adapter, or the full model. Sharded ones are gathered one
by one. The bytes depend on the weights alone: not on the strategy's file layout, the host, or the order of
sets."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from train.data.loading import TOKENIZER_FILES
from train.methods.saved import layout

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TRAINED_WEIGHTS = "trained.safetensors"
MAX_SHARD_SIZE = "5GB"
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
#: What goes with trained weights so that they are asked as they were trained.
_ASKING_FILES = (
    *TOKENIZER_FILES,
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",  # which tokens end an answer, where the template changed that
)


def gathered(model: Any, *, on_this_rank: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and whole value (float32 master weights, in host memory) of each trained parameter of the
    unwrapped `model`. Every rank iterates; values are yielded where `on_this_rank`."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            whole = _whole(parameter)
            if on_this_rank:
                yield name, whole.detach().cpu()


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    if hasattr(parameter, "full_tensor"):  # FSDP2's DTensor
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):  # DeepSpeed
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter)
    return parameter


def write_adapter(
    model: Any,
    folder: Path,
    *,
    base_name: str,
    base_revision: str | None = None,
    writes: bool,
    for_base: bool = False,
) -> None:
    """`adapter_config.json` and `adapter_model.safetensors` of the PEFT `model`, as PEFT lays them out; with
    `for_base` of an adapter for the base as it is on disk (`train.methods.saved.layout`). Every rank calls;
    the one that `writes` does."""
    from safetensors.torch import save_file

    weights = dict(gathered(model, on_this_rank=writes))
    if not writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors, config = layout(model, weights, for_base=for_base)
    contiguous = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(contiguous, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config |= {"base_model_name_or_path": base_name, "revision": base_revision, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON for what PEFT's configurations hold beside plain values: sets and enums."""
    return sorted(value) if isinstance(value, set | frozenset) else getattr(value, "value", str(value))


@contextlib.contextmanager
def without_frozen(engine: Any) -> Iterator[None]:
    """While it lasts, a DeepSpeed engine saves trained parameters alone. Its own `exclude_frozen_parameters`
    leaves in a tied output head, a copy of the whole embedding, in each checkpoint."""
    whole_state = engine.module_state_dict
    trained = {name for name, parameter in engine.module.named_parameters() if parameter.requires_grad}

    def trained_state(**options: Any) -> dict[str, Any]:
        return {name: value for name, value in whole_state(**options).items() if name in trained}

    engine.module_state_dict = trained_state
    try:
        yield
    finally:
        del engine.module_state_dict  # the class's is visible again


def write_trained(model: Any, folder: Path, *, writes: bool) -> None:
    """All trained weights, whole, by the names of their parameters: of virtual tokens, of which an adapter's
    file holds only what they come to. Every rank calls."""
    from safetensors.torch import save_file

    weights = dict(gathered(model, on_this_rank=writes))
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / TRAINED_WEIGHTS)


@torch.no_grad()
def read_trained(model: Any, folder: Path) -> bool:
    """Put back what `write_trained` wrote, into parameters or FSDP's parts of them. False where it wrote
    nothing. Every rank calls."""
    from safetensors.torch import load_file

    if not (folder / TRAINED_WEIGHTS).is_file():
        return False
    parameters = dict(model.named_parameters())
    for name, value in load_file(folder / TRAINED_WEIGHTS).items():
        parameter = parameters[name]
        if hasattr(parameter, "device_mesh"):
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        parameter.copy_(value)
    return True


@contextlib.contextmanager
def without_sharded_model() -> Iterator[None]:
    """While it lasts, transformers' Trainer saves of an FSDP model its optimizer alone. PEFT would run the
    prompt encoder to save it, which outside of a forward pass has only this rank's parts."""
    from transformers import trainer

    save = trainer.save_fsdp_model
    trainer.save_fsdp_model = lambda *_, **__: None
    try:
        yield
    finally:
        trainer.save_fsdp_model = save


def write_model(model: Any, folder: Path, *, base: Path, writes: bool) -> None:
    """The whole model, in the precision in which `base`, the folder it came from, holds its weights: those
    that were trained, and the others as they lie there. With all files of `base` that hold none:
    configuration, tokenizer, template, Python code. Every rank calls."""
    dtype = stored_dtype(base)
    weights = {name: value.to(dtype) for name, value in gathered(model, on_this_rank=writes)}
    if not writes:
        return
    if any(not parameter.requires_grad for parameter in model.parameters()):
        weights = _stored_weights(type(model), base, dtype) | weights
    weights |= {name: value.cpu() for name, value in _persistent_buffers(model)}
    model.save_pretrained(folder, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    copy_without_weights(base, folder)
    stored = json.loads((base / "config.json").read_bytes())
    if (config := grown_config(stored, model.config)) != stored:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _stored_weights(kind: Any, base: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The base's weights by the names of their parameters, whole on this rank whatever the strategy."""
    from transformers.integrations import deepspeed

    partitioning = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        model = kind.from_pretrained(base, dtype=dtype, local_files_only=True)
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = partitioning
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def grown_config(stored: dict[str, Any], config: Any) -> dict[str, Any]:
    """The base's config.json with the vocabulary and the layers that `config` counts."""
    if isinstance(stored.get("text_config"), dict):
        return {**stored, "text_config": grown_config(stored["text_config"], config.get_text_config())}
    current = config.get_text_config().to_dict()
    names = [name for name, value in stored.items() if isinstance(value, list) and "layer" in name]
    layers = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    if stored.get(layers) != current.get(layers):
        names += ["layer_types"]  # families that derive them would do so from the new length
    changed = {
        name: current[name] for name in (*names, layers, "vocab_size") if current.get(name) is not None
    }
    return stored | changed


def _persistent_buffers(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix=prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def stored_dtype(base: Path) -> torch.dtype:
    """In what the model folder holds its weights: what its configuration says, else its first tensor's
    type."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    named = config.get("dtype") or config.get("torch_dtype")
    if named:
        return getattr(torch, named)
    from safetensors import safe_open

    with safe_open(min(base.glob("*.safetensors")), framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype


def copy_without_weights(base: Path, folder: Path) -> None:
    """Copy the model folder's files but its weights (and their index), replacing what is there."""
    for source in sorted(path for path in base.rglob("*") if path.is_file()):
        relative = source.relative_to(base)
        is_weight = source.suffix in WEIGHT_SUFFIXES or source.name.endswith(".index.json")
        if not is_weight and not any(part.startswith(".") for part in relative.parts):
            _copy(source, folder / relative)


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Copy the tokenizer and chat template of the folder `base`, replacing what is there."""
    for pattern in _ASKING_FILES:
        for source in sorted(base.glob(pattern)):
            if source.is_file():
                _copy(source, folder / source.relative_to(base))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
