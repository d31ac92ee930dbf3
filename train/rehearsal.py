"""Rehearsal twins: a model's own config class, tokenizer, template and code with scaled-down dimensions.

Everything that decides which code runs stays as it is (architecture, activation, attention pattern, experts'
routing, vocabulary); only sizes shrink. Sizes that hang together shrink together: query to key heads keep
their grouping, per-layer lists keep one layer of each kind.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.contract import TwinParams
from artifacts.manifest import MARKER
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: Copied from the original. Weights and config are not.
COPIED = ("*.py", "*.cu", "*.cpp", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.json")
NOT_COPIED = {MARKER, "config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"}

#: Upper bounds of sizes that the twin's own parameters don't name. Names are transformers' config fields.
SIZE_LIMITS = {
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}


def write_rehearsal_twin(original: Path, folder: Path, params: TwinParams, trust_remote_code: bool) -> None:
    """Write the twin of the model folder `original`. Raises StageUserError where it can't be made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for pattern in COPIED:
        for file in original.glob(pattern):
            if file.name not in NOT_COPIED:
                shutil.copyfile(file, folder / file.name)
    model = shrunk_model(original, params, trust_remote_code=trust_remote_code)
    copied_code = {file.name: file.read_bytes() for file in folder.glob("*.py")}
    generation = folder / "generation_config.json"
    kept = generation.read_bytes() if generation.is_file() else None
    model.save_pretrained(folder)
    # save_pretrained has its own idea of these.
    if kept is not None:
        generation.write_bytes(kept)
    for name, content in copied_code.items():
        (folder / name).write_bytes(content)
    _keep_auto_map(original / "config.json", folder / "config.json")


def _keep_auto_map(original: Path, twin: Path) -> None:
    """transformers writes the original's path into the names of the repository's own classes."""
    auto_map = json.loads(original.read_text(encoding="utf-8")).get("auto_map")
    config = json.loads(twin.read_text(encoding="utf-8"))
    if auto_map is not None:
        config["auto_map"] = auto_map
        twin.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def shrunk_model(
    original: Path, params: TwinParams | None = None, *, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A random model of the folder's architecture, with its config's sizes scaled down to `params`'s."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    params = params or TwinParams()
    try:
        config = AutoConfig.from_pretrained(
            original, trust_remote_code=trust_remote_code, local_files_only=True
        )
        shrink(config, params)
        torch.manual_seed(params.seed)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise StageUserError(
            f"{original}: no tiny twin can be made: {error}", "does the folder hold a causal language model?"
        ) from error


def shrink(config: PreTrainedConfig, params: TwinParams) -> None:
    """Scale the config's sizes down in place, its text part where it has one."""
    text = config.get_text_config()
    layers = representative_layers(text, params.layers)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, name, [value[index] for index in layers])
    heads = text.num_attention_heads
    key_value_heads = getattr(text, "num_key_value_heads", None)
    sizes = {
        "num_hidden_layers": len(layers),
        "hidden_size": params.hidden_size,
        "intermediate_size": params.intermediate_size,
        "num_attention_heads": params.attention_heads,
        "head_dim": params.hidden_size // params.attention_heads,
    }
    if key_value_heads is not None:
        sizes["num_key_value_heads"] = _grouped(heads, key_value_heads, params)
    if hasattr(text, "qk_rope_head_dim"):  # latent attention: the rotated part is what `head_dim` means
        sizes["head_dim"] = SIZE_LIMITS["qk_rope_head_dim"]
    for name, size in (sizes | SIZE_LIMITS).items():
        settable = name in vars(text) or name in text.attribute_map
        current = getattr(text, name, None) if settable else None
        if isinstance(current, int) and not isinstance(current, bool) and current > size:
            setattr(text, name, size)
    for part in {id(part): part for part in (config, text)}.values():
        if hasattr(part, "quantization_config"):
            del part.quantization_config


def representative_layers(config: Any, at_least: int) -> list[int]:
    """Indices of layers that show every kind: kinds are told apart by the config's per-layer lists."""
    count = config.num_hidden_layers
    lists = [value for value in vars(config).values() if isinstance(value, list) and len(value) == count]
    kinds: dict[tuple[str, ...], int] = {}
    for index in range(count):
        kinds.setdefault(tuple(repr(values[index]) for values in lists), index)
    chosen = set(kinds.values())
    for index in range(count):
        if len(chosen) >= at_least:
            break
        chosen.add(index)
    return sorted(chosen)


def _grouped(heads: int, key_value_heads: int, params: TwinParams) -> int:
    """Key and value heads that keep multi-head, grouped and multi-query attention what they are."""
    if key_value_heads == heads:
        return params.attention_heads
    return 1 if key_value_heads == 1 else min(params.key_value_heads, params.attention_heads)
