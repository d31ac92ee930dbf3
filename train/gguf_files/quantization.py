"""Smaller GGUF files by llama.cpp's own quantization, and what became of the tensors."""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.processes import available_cores
from train.stage import StageError, StageUserError

#: Weights that share scales in a k-quant: a row must be a multiple of it (ggml, `QK_K`).
K_BLOCK = 256
_K_TYPES = ("Q4_K", "Q5_K", "Q6_K")


def quantize(converter: Path, source: Path, output: Path, kind: str) -> dict[str, str]:
    """Write `output`, of type `kind` ("q8_0", "q4_k_m"); returns the types of its matrices. Tensors are read
    and written one by one; the 16-bit file is mapped, not loaded. Raises StageError."""
    import llama_cpp

    llama_cpp._logger.set_verbose(True)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {
        "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
        "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    }[kind]
    params.nthread = available_cores()
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(output).encode(), ctypes.byref(params))
    if code:
        raise StageError(f"llama.cpp could not quantize to {kind} (code {code})", "see the stage's log")
    return tensor_types(converter, output)


def tensor_types(converter: Path, file: Path) -> dict[str, str]:
    """ggml's type of each weight matrix (vectors stay in 32 bits), by name."""
    sys.path.insert(0, str(converter / "gguf-py"))
    from gguf import GGUFReader

    return {
        tensor.name: tensor.tensor_type.name
        for tensor in GGUFReader(file).tensors
        if len([size for size in tensor.shape if size > 1]) > 1
    }


def told(kind: str, types: Mapping[str, str]) -> dict[str, Any]:
    """How many matrices are of which type. Raises StageUserError for a k-quant of which nothing is left:
    llama.cpp gives matrices whose rows do not fit its blocks another type."""
    counts = dict(sorted(Counter(types.values()).items()))
    if kind == "q4_k_m" and not any(name in counts for name in _K_TYPES):
        raise StageUserError(
            f"nothing of the model can be {kind}: its rows are no multiples of {K_BLOCK} weights",
            "ask for q8_0 (gguf.types)",
        )
    report: dict[str, Any] = {"tensors": counts}
    other = sorted(name for name, each in types.items() if kind == "q4_k_m" and each not in _K_TYPES)
    if other:
        report["other_types"] = other
    return report


def adds_bos(file: Path) -> bool:
    """Whether llama.cpp and Ollama put BOS before a prompt of this file."""
    from llama_cpp import Llama, llama_vocab_get_add_bos

    model = Llama(str(file), vocab_only=True, verbose=False)
    return bool(llama_vocab_get_add_bos(model._model.vocab))
