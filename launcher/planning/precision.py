"""In which number format the workers compute."""

from __future__ import annotations

from artifacts.contract import Precision
from launcher.machine import Gpu
from launcher.planning.findings import Findings
from launcher.planning.hardware import compute_capability

#: bfloat16 arithmetic begins with NVIDIA's Ampere.
BF16_CAPABILITY = (8, 0)


def choose(found: Findings) -> Precision:
    wanted, gpu = found.job.training.precision, found.hardware.gpu
    if wanted != "auto":
        if gpu is not None and not has_precision(gpu, wanted):
            why = f"{gpu.name} has no bfloat16"
            found.refuse("training.precision", wanted, why, "use fp16, fp32 or auto")
        return wanted
    if gpu is None:
        found.say("training.precision", "fp32", "CPU workers: exact, and as fast as most cores go")
        return "fp32"
    has_bf16 = has_precision(gpu, "bf16")
    precision: Precision = "bf16" if has_bf16 else "fp32"
    found.say("training.precision", precision, f"{gpu.name} has {'' if has_bf16 else 'no '}bfloat16")
    return precision


def has_precision(gpu: Gpu | None, precision: Precision) -> bool:
    """Whether workers on `gpu` (None: on cores) compute in it. A GPU of which nothing is known is taken for a
    new one."""
    if gpu is None:
        return precision != "fp16"
    return precision != "bf16" or (compute_capability(gpu) or BF16_CAPABILITY) >= BF16_CAPABILITY
