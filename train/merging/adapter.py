"""An adapter folder as PEFT writes it (LoRA and its kin, IA3), read as changes to the base's tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.merging.tensors import StoredTensor, read_header
from train.merging.updates import BiasUpdate, FactorUpdate, LoraUpdate, RowsUpdate, Update
from train.stage import StageUserError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PICKLED_NAME = "adapter_model.bin"
_PREFIX = "base_model.model."
#: What the name of an adapter's tensor ends in, after its module's.
_PARTS = re.compile(
    r"(?P<module>.+)\.(?P<part>"
    r"lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|"
    r"ia3_l|token_adapter\.trainable_tokens_delta)"
)
_MARKS = ("lora_", "ia3_", "token_adapter")

#: Options of LoraConfig under which weights can't be added to the base as `scaling * B @ A`.
_UNMERGEABLE = (
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "velora_config",
)
_BESIDE = "use it beside its base (leave merge out of `after`), or merge it with PEFT"
#: Initialisations that leave the base weights as they are; the others (PiSSA, OLoRA, LoftQ…) change them.
_PLAIN_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """Changes by name of the base tensor: replaced whole (`modules_to_save`, trained biases), or updated."""

    replacements: dict[str, StoredTensor] = field(default_factory=dict)
    updates: dict[str, Update] = field(default_factory=dict)
    #: Biases that are scaled with their weights, where the base has them.
    optional: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """Tensors that the base must have."""
        return (set(self.replacements) | set(self.updates)) - self.optional


def has_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, of whatever kind, and not a whole model."""
    return any((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME, _PICKLED_NAME))


def read_adapter(folder: Path) -> Adapter:
    """Raises StageUserError for an adapter that is pickled, broken, or not mergeable."""
    if not (folder / WEIGHTS_NAME).is_file():
        pickled = (folder / _PICKLED_NAME).is_file()
        found = f"a pickled adapter ({_PICKLED_NAME}), which could run code" if pickled else "no adapter"
        raise StageUserError(f"{folder} has {found}", f"save it as {WEIGHTS_NAME}")
    config = read_config(folder)
    check_mergeable(config)
    return adapter_changes(config, {tensor.name: tensor for tensor in read_header(folder / WEIGHTS_NAME)})


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises StageUserError where it can't be read."""
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise StageUserError(f"{folder} has no {CONFIG_NAME} that can be read", "copy it again") from error
    return config


def check_mergeable(config: dict[str, Any]) -> None:
    """Raises StageUserError naming the option that stands in the way."""
    if config.get("peft_type") not in ("LORA", "IA3"):
        raise StageUserError(f"an adapter of the type {config.get('peft_type')} can't be merged", _BESIDE)
    for option in _UNMERGEABLE:
        if config.get(option):
            raise StageUserError(f"an adapter with {option} can't be merged yet", _BESIDE)
    initialisation = config.get("init_lora_weights", True)
    if initialisation not in _PLAIN_INITIALISATIONS:
        raise StageUserError(
            f"the adapter's init_lora_weights: {initialisation} changed the base weights before training, "
            "and the adapter alone does not say how",
            "save it with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT, which "
            "repeats the initialisation",
        )


def adapter_changes(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> Adapter:
    """Sort the adapter's tensors by what they do. Raises StageUserError for a key of no known kind."""
    adapter = Adapter()
    modules: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in tensors.items():
        match = _PARTS.fullmatch(key.removeprefix(_PREFIX))
        if not key.startswith(_PREFIX) or (match is None and any(mark in key for mark in _MARKS)):
            raise StageUserError(f"the adapter's key {key} is of no known kind", "merge it with PEFT")
        if match is None:
            adapter.replacements[key.removeprefix(_PREFIX).replace(".base_layer.", ".")] = tensor
        else:
            modules.setdefault(match["module"], {})[match["part"].removesuffix(".weight")] = tensor
    scaled_biases = set()
    for module, found in modules.items():
        for name, update in _updates(config, module, found):
            adapter.updates[name] = update
            if isinstance(update, FactorUpdate) and update.bias:
                scaled_biases.add(name)
    return Adapter(adapter.replacements, adapter.updates, frozenset(scaled_biases))


def _updates(
    config: dict[str, Any], module: str, found: dict[str, StoredTensor]
) -> Iterator[tuple[str, Update]]:
    """The changes of one module's tensors, from the adapter's parts of it."""
    transposed = bool(config.get("fan_in_fan_out"))
    if rows := found.pop("token_adapter.trainable_tokens_delta", None):
        yield f"{module}.weight", RowsUpdate(rows, _indices(config, module, rows))
    if factor := found.pop("ia3_l", None):
        yield f"{module}.weight", FactorUpdate(factor, transposed)
        if factor.shape[1] == 1:
            yield f"{module}.bias", FactorUpdate(factor, bias=True)
    if not found:
        return
    scaling = module_scaling(config, module)
    embedding = "lora_embedding_A" in found
    pair = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    if missing := [part for part in pair if part not in found]:
        raise StageUserError(f"the adapter has no {missing[0]} for {module}", "train it again")
    a, b = found[pair[0]], found[pair[1]]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise StageUserError(f"the adapter's matrices of {module} don't fit: A {a.shape}, B {b.shape}")
    magnitude = found.get("lora_magnitude_vector")
    yield f"{module}.weight", LoraUpdate(a, b, scaling, embedding, transposed, magnitude)
    if "lora_B.bias" in found:
        yield f"{module}.bias", BiasUpdate(found["lora_B.bias"], scaling)


def _indices(config: dict[str, Any], module: str, rows: StoredTensor) -> tuple[int, ...]:
    """Which rows of the module these are. Raises StageUserError where the configuration does not say."""
    said: Any = config.get("trainable_token_indices") or {}
    named = said if isinstance(said, dict) else {module: said}
    indices = next((numbers for name, numbers in named.items() if f".{module}".endswith(f".{name}")), [])
    if len(indices) != rows.shape[0]:
        raise StageUserError(
            f"the adapter has {rows.shape[0]} rows of {module}, its configuration names {len(indices)}",
            "train it again",
        )
    return tuple(indices)


def trained_tokens(config: dict[str, Any]) -> set[int]:
    """Of which tokens the adapter trains rows of their own."""
    said: Any = config.get("trainable_token_indices") or {}
    return {index for indices in (said.values() if isinstance(said, dict) else [said]) for index in indices}


def module_scaling(config: dict[str, Any], module: str) -> float:
    """alpha / rank of one module, alpha / √rank for rank-stabilised LoRA (https://arxiv.org/abs/2312.03732)."""
    rank = _pattern_value(config.get("rank_pattern") or {}, module, config["r"])
    alpha = _pattern_value(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _pattern_value(patterns: dict[str, float], module: str, default: float) -> float:
    """The first pattern that matches the module's name or its end, as `peft.utils.other.get_pattern_key`."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
