"""What torch calls the precisions of a plan."""

from __future__ import annotations

import torch

from artifacts.contract import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
