"""A folder with what was trained elsewhere: a PEFT adapter, or a whole model."""

from __future__ import annotations

from pathlib import Path

from artifacts.manifest import FileEntry
from launcher.digests import Digests
from launcher.spec.files import Fault
from launcher.stages import model_folder

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
#: What trainers leave beside an adapter, and says how it was trained, not what it is.
_OF_TRAINERS = {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"}


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def faults(folder: Path, *, weights: bool = True) -> list[Fault]:
    """What keeps a folder from being an adapter or a whole model; empty when nothing."""
    if not is_adapter(folder):
        if not (folder / "config.json").is_file():
            fault = f"has neither an adapter ({CONFIG}) nor a model (config.json)"
            return [Fault(fault, "name the folder that the training wrote")]
        return model_folder.weight_faults(folder) if weights else []
    if model_folder.read_json(folder / CONFIG) is None:
        return [Fault(f"has no {CONFIG} that can be read", "copy the adapter again")]
    if not weights or (folder / WEIGHTS).is_file():
        return []
    if (folder / _PICKLED).is_file():
        fault = f"has a pickled adapter ({_PICKLED}), which can run code when it is loaded"
        way_out = "convert it where you trust it: load it with PEFT, and save_pretrained writes safetensors"
        return [Fault(fault, way_out)]
    return [Fault(f"lacks {WEIGHTS}", "copy the adapter again")]


def entries(folder: Path, digests: Digests, *, weights: bool = True) -> list[FileEntry]:
    """Sizes and digests of its files: an adapter's with the tokenizer beside it. Raises OSError."""
    if not is_adapter(folder):
        return model_folder.entries(folder, digests, weights=weights)
    names = set(model_folder.model_files(folder, weights=False)) - _OF_TRAINERS
    names |= {WEIGHTS} if weights else set()
    return model_folder.entries_of(folder, sorted(names), digests)
