from __future__ import annotations

import pytest

from launcher.catalog import ACCELERATORS, Accelerator, find, names


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("H100-80GB", "H100-80GB"),
        ("h100-80gb", "H100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),  # nvidia-smi
        ("NVIDIA-H100-80GB-HBM3", "H100-80GB"),  # nvidia.com/gpu.product
        ("NVIDIA-A100-SXM4-80GB-SHARED", "A100-80GB"),  # the same with time slicing
        ("nvidia-tesla-a100", "A100-40GB"),  # cloud.google.com/gke-accelerator
        ("Tesla T4", "T4-16GB"),
        ("NVIDIA L4", "L4-24GB"),
        ("NVIDIA L40S", "L40S-48GB"),
    ],
)
def test_finds_a_gpu_by_each_of_its_names(written: str, name: str) -> None:
    found = find(written)
    assert found is not None and found.name == name


@pytest.mark.parametrize("written", ["", "H100", "NVIDIA", "NVIDIA GeForce GTX 1050"])
def test_guesses_no_gpu(written: str) -> None:
    assert find(written) is None


def test_no_name_means_two_gpus() -> None:
    written = [name for gpu in ACCELERATORS for name in (gpu.name, *gpu.aliases)]
    assert [find(name).name for name in written] == [  # type: ignore[union-attr]
        gpu.name for gpu in ACCELERATORS for _ in (gpu.name, *gpu.aliases)
    ]
    assert len(set(names())) == len(names())


@pytest.mark.parametrize("gpu", ACCELERATORS, ids=lambda gpu: gpu.name)
def test_facts_are_plausible_and_sourced(gpu: Accelerator) -> None:
    assert gpu.name.endswith(f"{gpu.memory_bytes // 10**9}GB")
    assert (gpu.bf16_flops_per_second is not None) == (gpu.compute_capability >= (8, 0))
    assert 1 < gpu.fp16_flops_per_second / gpu.fp32_flops_per_second < 10
    assert "(20" in gpu.source  # a document and its date


def test_peaks_are_dense() -> None:
    h100 = find("H100-80GB")
    assert h100 is not None
    assert h100.peak_flops_per_second("bf16") == 989.5e12  # the datasheet's 1,979 is with sparsity
    assert h100.peak_flops_per_second("fp32") == 494.5e12  # TF32
