"""Which attention kernel: whether the one that the job names can run where its workers do."""

from __future__ import annotations

from artifacts.contract import Precision
from launcher.planning.findings import Findings
from launcher.planning.hardware import compute_capability

_FIELD = "training.attention"
#: Compute capabilities that flash attention is written for: version 2 from Ampere on, version 3 for Hopper
#: alone (https://github.com/Dao-AILab/flash-attention, "Installation and features").
_AMPERE, _HOPPER = (8, 0), (9, 0)


def check(found: Findings, precision: Precision) -> None:
    """Refuse a kernel that can't run; say what `auto` means. What is installed is known where ranks start
    (`train.attention`)."""
    wanted, gpu = found.job.training.attention, found.hardware.gpu
    if wanted == "auto":
        if gpu:
            found.say("attention", "auto", "flash-attention where it is installed, else PyTorch's sdpa")
        else:
            found.say("attention", "sdpa", "PyTorch's own, for CPUs")
    if not wanted.startswith("flash"):
        return
    if gpu is None:
        found.refuse(_FIELD, wanted, "flash attention needs a GPU", "use sdpa or auto")
        return
    if precision == "fp32":
        found.refuse(_FIELD, wanted, "flash attention knows no fp32", "use precision bf16, or attention sdpa")
    capability = compute_capability(gpu)
    if capability is None:
        return
    if wanted == "flash_attention_3" and capability[0] != _HOPPER[0]:
        why = f"version 3 is for Hopper GPUs, and {gpu.name} is none"
        found.refuse(_FIELD, wanted, why, "use flash_attention_2 or auto")
    elif capability < _AMPERE:
        why = f"it needs compute capability 8.0, and {gpu.name} has {capability[0]}.{capability[1]}"
        found.refuse(_FIELD, wanted, why, "use sdpa or auto")
