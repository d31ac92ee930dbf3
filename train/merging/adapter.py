"""A LoRA adapter folder as PEFT writes it, read as changes to the base model's tensors.

The arithmetic is PEFT 0.21's own (`peft/tuners/lora/layer.py`: `Linear.merge`, `Embedding.merge` and their
`get_delta_weight`), operation by operation and dtype by dtype, so that the merged weights have its bits.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.merging.tensors import Memory, StoredTensor, read_header
from train.stage import StageUserError

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_BLOCK_ELEMENTS = 1 << 17
_PREFIX = "base_model.model."
_LORA_KEY = re.compile(
    r"(?P<module>.+)\.lora_(?:(?P<part>[AB])\.(?P<kind>weight|bias)|embedding_(?P<table>[AB]))"
)

#: Options of LoraConfig under which weights can't be added to the base as `scaling * B @ A`.
_UNMERGEABLE = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "velora_config",
)
#: Initialisations that leave the base weights as they are; the others (PiSSA, OLoRA, LoftQ…) change them.
_PLAIN_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraUpdate:
    """`weight += scaling * B @ A` of one module: A (rank, in), B (out, rank).

    An embedding's are A (rank, vocabulary), B (dimension, rank), and the product is transposed.
    """

    a: StoredTensor
    b: StoredTensor
    scaling: float
    embedding: bool = False
    transposed: bool = False  # fan_in_fan_out: the base weight is (in, out), as GPT-2's Conv1D

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base weight that this fits."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.embedding or self.transposed else (out, into)

    def apply(self, weight: torch.Tensor, memory: Memory) -> None:
        """Add the delta to `weight` in place.

        The product is one call over the whole matrix, as PEFT's, so that sums are taken in the same order;
        what follows is done element by element and can go block by block, which stays in the cache.
        """
        import torch

        dtype = _compute_dtype(weight)
        a, b = self.a.read().to(dtype), self.b.read().to(dtype)
        rows, columns = b.shape[0], a.shape[1]
        delta = memory.take("delta", rows * columns * dtype.itemsize).view(dtype).view(rows, columns)
        torch.mm(b, a, out=delta)
        if self.embedding or self.transposed:
            delta = delta.T
        step = max(1, _BLOCK_ELEMENTS // weight.shape[1])
        for part, block in zip(weight.split(step), delta.split(step), strict=True):
            block *= self.scaling
            part += block.to(weight.dtype) if self.embedding else block


@dataclass(frozen=True)
class BiasUpdate:
    """`bias += lora_B.bias * scaling` (LoraConfig's `lora_bias`)."""

    b: StoredTensor
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.b.shape

    def apply(self, bias: torch.Tensor, memory: Memory) -> None:
        bias += self.b.read().to(_compute_dtype(bias)) * self.scaling


@dataclass(frozen=True)
class Adapter:
    """Changes by name of the base tensor: replaced whole (`modules_to_save`, trained biases), or added to."""

    replacements: dict[str, StoredTensor] = field(default_factory=dict)
    updates: dict[str, LoraUpdate | BiasUpdate] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return set(self.replacements) | set(self.updates)


def read_adapter(folder: Path) -> Adapter:
    """Raises StageUserError for an adapter that is pickled, broken, or not mergeable."""
    if not (folder / WEIGHTS_NAME).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        found = "a pickled adapter (adapter_model.bin), which could run code" if pickled else "no adapter"
        raise StageUserError(f"{folder} has {found}", f"save it as {WEIGHTS_NAME}")
    config = json.loads((folder / CONFIG_NAME).read_bytes())
    check_mergeable(config)
    return adapter_changes(config, {tensor.name: tensor for tensor in read_header(folder / WEIGHTS_NAME)})


def check_mergeable(config: dict[str, Any]) -> None:
    """Raises StageUserError naming the option that stands in the way."""
    if config.get("peft_type") != "LORA":
        raise StageUserError(
            f"an adapter of the type {config.get('peft_type')} can't be merged", "leave merge out of `after`"
        )
    for option in _UNMERGEABLE:
        if config.get(option):
            raise StageUserError(
                f"an adapter with {option} can't be merged yet", "leave merge out of `after`"
            )
    initialisation = config.get("init_lora_weights", True)
    if initialisation not in _PLAIN_INITIALISATIONS:
        raise StageUserError(
            f"the adapter's init_lora_weights: {initialisation} changed the base weights before training",
            "convert it with PEFT's path_initial_model_for_weight_conversion first",
        )


def adapter_changes(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> Adapter:
    """Sort the adapter's tensors by what they do. Raises StageUserError for a key of no known kind."""
    adapter = Adapter()
    parts: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in tensors.items():
        match = _LORA_KEY.fullmatch(key.removeprefix(_PREFIX))
        if not key.startswith(_PREFIX) or (match is None and ("lora_" in key or "token_adapter" in key)):
            raise StageUserError(f"the adapter's key {key} is of no known kind", "merge it with PEFT")
        if match is None:
            adapter.replacements[key.removeprefix(_PREFIX).replace(".base_layer.", ".")] = tensor
        else:
            kind = f"table_{match['table']}" if match["table"] else f"{match['part']}_{match['kind']}"
            parts.setdefault(match["module"], {})[kind] = tensor
    for module, found in parts.items():
        scaling = module_scaling(config, module)
        embedding = "table_A" in found
        pair = ("table_A", "table_B") if embedding else ("A_weight", "B_weight")
        if missing := [part for part in pair if part not in found]:
            raise StageUserError(f"the adapter has no {missing[0]} for {module}", "train it again")
        a, b = found[pair[0]], found[pair[1]]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise StageUserError(f"the adapter's matrices of {module} don't fit: A {a.shape}, B {b.shape}")
        transposed = bool(config.get("fan_in_fan_out"))
        adapter.updates[f"{module}.weight"] = LoraUpdate(a, b, scaling, embedding, transposed)
        if "B_bias" in found:
            adapter.updates[f"{module}.bias"] = BiasUpdate(found["B_bias"], scaling)
    return adapter


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


def _compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """PEFT keeps adapter weights in float32 beside a half-precision base (`cast_adapter_dtype`), else in the
    base's dtype."""
    import torch

    return torch.float32 if weight.dtype in (torch.float16, torch.bfloat16) else weight.dtype
