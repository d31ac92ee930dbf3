"""A GPTQ checkpoint made on the spot: weights rounded to 4 bits and packed as GPTQ does (`checkpoint_format`
"gptq"), without its search for better roundings."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GROUP_SIZE = 32
_PACKED = 8  # numbers of 4 bits in an int32
_ZERO = 8  # symmetric: what stands for 0; stored as one less


def write_gptq(base: Path, folder: Path) -> Path:
    """The model of the folder `base` with the linear layers of its blocks quantized."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            module = name.removesuffix(".weight")
            tensors |= {f"{module}.{part}": value for part, value in _packed(weight).items()}
        else:
            tensors[name] = weight.half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_bytes())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": 4,
        "group_size": GROUP_SIZE,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _packed(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """qweight (in / 8, out), qzeros (groups, out / 8), scales (groups, out) and g_idx (in,) of a weight
    (out, in)."""
    out, into = weight.shape
    groups = weight.float().T.reshape(into // GROUP_SIZE, GROUP_SIZE, out)
    scales = groups.abs().amax(1) / (_ZERO - 1)
    numbers = (torch.round(groups / scales[:, None]) + _ZERO).clamp(0, 15).long().reshape(into, out)
    zeros = torch.full((into // GROUP_SIZE, out), _ZERO - 1)
    return {
        "qweight": _pack(numbers.T).T.contiguous(),
        "qzeros": _pack(zeros),
        "scales": scales.half(),
        "g_idx": torch.arange(into, dtype=torch.int32) // GROUP_SIZE,
    }


def _pack(numbers: torch.Tensor) -> torch.Tensor:
    """(n, 8 m) numbers of 4 bits to (n, m) int32, the first in the lowest bits."""
    rows = numbers.long().reshape(len(numbers), -1, _PACKED)
    packed = (rows << (4 * torch.arange(_PACKED))).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
