"""The models and prepared splits that cells are trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from artifacts.contract import TwinParams
from tests.train import training
from train.twin import make_twin

TWIN = TwinParams(
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    attention_heads=4,
    key_value_heads=2,
    vocabulary_size=300,
    max_positions=128,
    tie_embeddings=False,
)
TEXTS = ["The quick brown fox jumps over the lazy dog.", "Pack my box with five dozen liquor jugs."]
_GROUP = 32  # weights that share a scale
_BITS = 4


def write(root: Path) -> None:
    """`model`, `gptq` (the same, quantized), `packed` and `unpacked` below `root`."""
    files = make_twin(TWIN, TEXTS)
    for folder in ("model", "gptq"):
        (root / folder).mkdir(parents=True)
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
    _quantize(root / "gptq")
    # Tokens of the whole vocabulary: each rank's part of the embedding learns something.
    made = [
        ([3 * i for i in ids], [3 * i if i > 0 else i for i in labels])
        for ids, labels in training.documents(60)
    ]
    for folder, rows in (("packed", training.pack(made, 48)), ("unpacked", [[one] for one in made])):
        training.write_split(root / folder, "train", rows[:8])
        (root / folder / "statistics.json").write_text(json.dumps({"added_tokens": {}, "template": "own"}))
        shutil.copytree(
            root / "model",
            root / folder / "tokenizer",
            ignore=shutil.ignore_patterns("model.safetensors", "config.json"),
        )


def _quantize(folder: Path) -> None:
    """The folder's linear layers rounded to 4 bits, in GPTQ's checkpoint format: `qweight` holds eight
    weights an int32 along the inputs, `qzeros` (less one) along the outputs, one scale and zero a group."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    quantized: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("model.layers.") and tensor.ndim == 2:
            stem = name.removesuffix("weight")
            quantized |= {stem + part: value for part, value in _packed(tensor).items()}
        else:
            quantized[name] = tensor
    safetensors.numpy.save_file(quantized, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": _BITS,
        "group_size": _GROUP,
        "desc_act": False,
        "sym": True,
        "checkpoint_format": "gptq",
    }
    (folder / "config.json").write_text(json.dumps(config))


def _packed(weight: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    outputs, inputs = weight.shape
    groups = weight.T.reshape(inputs // _GROUP, _GROUP, outputs)
    middle = 2 ** (_BITS - 1)
    scales = np.abs(groups).max(axis=1) / (middle - 1)
    levels = np.clip(np.rint(groups / scales[:, None]) + middle, 0, 2**_BITS - 1).astype(np.uint32)
    zeros = np.full((inputs // _GROUP, outputs), middle - 1, np.uint32)
    return {
        "qweight": _pack(levels.reshape(inputs, outputs), axis=0),
        "qzeros": _pack(zeros, axis=1),
        "scales": scales.astype(np.float16),
        "g_idx": (np.arange(inputs) // _GROUP).astype(np.int32),
    }


def _pack(levels: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """Eight neighbours along `axis` in one int32, the first in the lowest bits."""
    each = 32 // _BITS
    moved = np.moveaxis(levels, axis, -1)
    moved = moved.reshape(*moved.shape[:-1], -1, each) << (np.arange(each, dtype=np.uint32) * _BITS)
    packed = np.bitwise_or.reduce(moved, axis=-1).view(np.int32)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis))
