"""Facts about GPUs: memory and dense peak throughput by precision, with their source.

NVIDIA's datasheets state tensor-core throughput with 2:4 sparsity from Ampere on; the numbers here are
dense, as training computes. Memory is the datasheet's capacity (GB = 10^9 bytes); on this machine
`launcher.machine` asks the driver instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from artifacts.contract import Precision

_GB = 10**9
_TFLOPS = 10**12


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU type. FLOP/s are dense tensor-core peaks: `fp32_flops_per_second` is TF32's where the GPU has
    it (Ampere and later), else plain single precision."""

    name: str
    memory_bytes: int
    bf16_flops_per_second: float | None  # None: the GPU has no bfloat16
    fp16_flops_per_second: float
    fp32_flops_per_second: float
    compute_capability: tuple[int, int]
    aliases: tuple[str, ...]  # nvidia-smi names, `nvidia.com/gpu.product` and cloud node labels
    source: str  # document and its date

    def peak_flops_per_second(self, precision: Precision) -> float | None:
        return {
            "bf16": self.bf16_flops_per_second,
            "fp16": self.fp16_flops_per_second,
            "fp32": self.fp32_flops_per_second,
        }[precision]


def _gpu(
    name: str,
    gigabytes: int,
    sixteen_bit_tflops: float,
    fp32_tflops: float,
    compute_capability: tuple[int, int],
    source: str,
    *aliases: str,
) -> Accelerator:
    """bf16 and fp16 run at one rate from compute capability 8.0 on; older GPUs have no bf16."""
    return Accelerator(
        name=name,
        memory_bytes=gigabytes * _GB,
        bf16_flops_per_second=sixteen_bit_tflops * _TFLOPS if compute_capability >= (8, 0) else None,
        fp16_flops_per_second=sixteen_bit_tflops * _TFLOPS,
        fp32_flops_per_second=fp32_tflops * _TFLOPS,
        compute_capability=compute_capability,
        aliases=aliases,
        source=source,
    )


_BLACKWELL = "NVIDIA HGX B200 datasheet (2024-11), per GPU, sparse figures halved"
_H200 = "NVIDIA H200 datasheet (2024-11), sparse figures halved"
_H100 = "NVIDIA H100 datasheet (2024-02), sparse figures halved"
_A100 = "NVIDIA A100 datasheet (2022-02)"
_ADA = "NVIDIA Ada GPU architecture whitepaper (2023-04), fp32 accumulation"
_GA102 = "NVIDIA GA102 whitepaper (2021-04), fp32 accumulation"
_VOLTA = "NVIDIA V100 datasheet (2020-01)"

ACCELERATORS: tuple[Accelerator, ...] = (
    # name, GB, 16-bit TFLOP/s, 32-bit TFLOP/s, compute capability, source, aliases
    _gpu("B200-180GB", 180, 2250, 1125, (10, 0), _BLACKWELL, "NVIDIA B200", "nvidia-b200"),
    _gpu("H200-141GB", 141, 989.5, 494.5, (9, 0), _H200, "NVIDIA H200", "nvidia-h200-141gb"),
    _gpu("H100-80GB", 80, 989.5, 494.5, (9, 0), _H100,
         "NVIDIA H100 80GB HBM3", "nvidia-h100-80gb", "nvidia-h100-mega-80gb", "H100-SXM"),
    _gpu("H100-PCIe-80GB", 80, 756.5, 378, (9, 0), _H100, "NVIDIA H100 PCIe"),
    _gpu("H100-NVL-94GB", 94, 835.5, 417.5, (9, 0), _H100, "NVIDIA H100 NVL"),
    _gpu("A100-80GB", 80, 312, 156, (8, 0), _A100,
         "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "nvidia-a100-80gb"),
    _gpu("A100-40GB", 40, 312, 156, (8, 0), _A100,
         "NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB", "nvidia-tesla-a100"),
    _gpu("A30-24GB", 24, 165, 82, (8, 0), "NVIDIA A30 datasheet (2022-03)", "NVIDIA A30"),
    _gpu("A40-48GB", 48, 149.7, 74.8, (8, 6), "NVIDIA A40 datasheet (2021-10)", "NVIDIA A40"),
    _gpu("A10-24GB", 24, 125, 62.5, (8, 6), "NVIDIA A10 datasheet (2021-03)", "NVIDIA A10"),
    _gpu("A10G-24GB", 24, 70, 35, (8, 6), "NVIDIA A10G datasheet for AWS (2022-02)", "NVIDIA A10G"),
    _gpu("A6000-48GB", 48, 154.8, 77.4, (8, 6), _GA102, "NVIDIA RTX A6000", "RTX-A6000"),
    _gpu("RTX3090-24GB", 24, 71, 35.6, (8, 6), _GA102, "NVIDIA GeForce RTX 3090"),
    _gpu("L40S-48GB", 48, 362, 183, (8, 9), "NVIDIA L40S datasheet (2023-08)", "NVIDIA L40S"),
    _gpu("L40-48GB", 48, 181, 90.5, (8, 9), "NVIDIA L40 datasheet (2023-01)", "NVIDIA L40"),
    _gpu("L4-24GB", 24, 121, 60, (8, 9), "NVIDIA L4 datasheet (2023-03), sparse figures halved",
         "NVIDIA L4", "nvidia-l4"),
    _gpu("RTX4090-24GB", 24, 165.2, 82.6, (8, 9), _ADA, "NVIDIA GeForce RTX 4090"),
    _gpu("T4-16GB", 16, 65, 8.1, (7, 5), "NVIDIA T4 datasheet (2019-03)", "Tesla T4", "nvidia-tesla-t4"),
    _gpu("V100-32GB", 32, 125, 15.7, (7, 0), _VOLTA, "Tesla V100-SXM2-32GB", "Tesla V100-SXM3-32GB"),
    _gpu("V100-16GB", 16, 125, 15.7, (7, 0), _VOLTA, "Tesla V100-SXM2-16GB", "nvidia-tesla-v100"),
)  # fmt: skip


def find(name: str) -> Accelerator | None:
    """The GPU type with this name or alias; case, spaces, dashes and a `-SHARED` ending do not matter
    (Kubernetes labels write nvidia-smi's names with dashes, shared GPUs with that ending)."""
    wanted = _normal(name).removesuffix("-shared")
    return next((gpu for gpu in ACCELERATORS if wanted in _normal_names(gpu)), None)


def names() -> list[str]:
    return [gpu.name for gpu in ACCELERATORS]


def _normal_names(gpu: Accelerator) -> Iterator[str]:
    yield from (_normal(name) for name in (gpu.name, *gpu.aliases))


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
