"""gptqmodel's kernels for GPTQ weights: which of them load at once, anywhere, and pass gradients on.

Left to itself gptqmodel takes the fastest for inference, which it compiles at the first use: a minute, with a
compiler, for AVX-512 on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What PyTorch's own product with 4-bit integers takes (gptqmodel 7.7,
#: nn_modules/qlinear/torch_aten_kernel.py).
_ATEN_BITS, _ATEN_GROUP_SIZES = 4, (32, 64, 128, 256)


def trainable_kernel(stored: Mapping[str, Any], *, on_gpu: bool) -> str:
    """For weights `stored` as a model's `quantization_config` says. On a GPU Triton makes it fast; on CPUs
    that of 8 bits and of whole rows writes weights out at each use."""
    aten = stored["bits"] == _ATEN_BITS and stored["group_size"] in _ATEN_GROUP_SIZES
    return "gptq_torch_aten" if aten and not on_gpu else "gptq_torch"


def loading_config(stored: Mapping[str, Any]) -> Any:
    """The `quantization_config` that `from_pretrained` is to load such weights by. Has this process compile
    nothing on a CPU: that kernel's dequantizing would be, for half a minute."""
    import torch
    from transformers import GPTQConfig

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.compiler.set_stance("force_eager")
    return GPTQConfig(bits=stored["bits"], backend=trainable_kernel(stored, on_gpu=on_gpu))
