from __future__ import annotations

from typing import Any

import pytest

from launcher.dimensions import from_config
from launcher.planning import trainable
from launcher.planning.sizing import Request, choose
from launcher.spec.method import Method
from tests.launcher.plans import GIB, QWEN3_8B

GB = 10**9
TINY = {**QWEN3_8B, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 1024}


def request(config: dict[str, Any] | None = QWEN3_8B, method: str = "full", **changes: Any) -> Request:
    size = from_config(config) if config else None
    counted = Method(type=method)
    values: dict[str, Any] = {
        "trainable": 0,
        "frozen": 0,
        "precision": "bf16",
        "workers": 8,
        "sequences_per_worker": 8,
        "max_length": 2048,
        "strategy": "auto",
        "offload": "none",
        "gradient_checkpointing": "auto",
        "micro_batch_size": None,
        "gpu_memory_bytes": 80 * GB,
        "host_memory_bytes": 1024 * GIB,
    }
    if size is not None:
        values |= {
            "trainable": trainable.parameters(size, counted),
            "frozen": trainable.frozen(size, counted),
        }
    return Request(dimensions=size, **{**values, **changes})


ON_CPU: dict[str, Any] = {
    "gpu_memory_bytes": None,
    "precision": "fp32",
    "workers": 2,
    "host_memory_bytes": 16 * GIB,
}


@pytest.mark.parametrize(
    ("asked", "strategy", "offload"),
    [
        (request(method="lora", workers=1), "ddp", "none"),
        (request(method="lora"), "ddp", "none"),  # it fits
        (request(), "fsdp", "none"),  # 148 GB do not
        (request(workers=1), "zero3", "optimizer"),  # nothing to shard over
        (request(workers=1, gpu_memory_bytes=16 * GB), "zero3", "params"),
        (request(offload="optimizer"), "zero3", "optimizer"),  # the job's word
        (request(strategy="zero2"), "zero2", "none"),
        (request(TINY, **ON_CPU), "ddp", "none"),
        (request(TINY, strategy="fsdp", **ON_CPU), "fsdp", "none"),
    ],
)
def test_the_simplest_strategy_that_fits(asked: Request, strategy: str, offload: str) -> None:
    sized = choose(asked)
    assert (sized.strategy, sized.offload, sized.misfit) == (strategy, offload, None)


def test_the_reason_names_what_did_not_fit() -> None:
    derived = {item.field: item.reason for item in choose(request()).derived}
    reason = derived["strategy.type"]
    assert reason.startswith("8 workers on GPUs: ddp needs at least 15")
    assert "of a GPU's 80.0 GB; fsdp needs at least 2" in reason


@pytest.mark.parametrize(
    "asked", [request(**ON_CPU), request(strategy="ddp"), request(workers=1, host_memory_bytes=64 * GIB)]
)
def test_what_fits_nowhere_is_said_with_numbers(asked: Request) -> None:
    sized = choose(asked)
    assert sized.misfit is not None and "needs at least" in sized.misfit and "GB of" in sized.misfit


def test_activations_are_recomputed_only_when_they_must_be() -> None:
    kept = choose(request(method="lora"))
    assert not kept.gradient_checkpointing
    must = choose(request(method="lora", gpu_memory_bytes=40 * GB, max_length=8192))
    assert must.gradient_checkpointing
    assert not choose(request(TINY, **ON_CPU)).gradient_checkpointing
    assert choose(request(TINY, gradient_checkpointing=True, **ON_CPU)).gradient_checkpointing


@pytest.mark.parametrize(
    ("changes", "micro"),
    [
        ({"sequences_per_worker": 6, "max_length": 128}, 6),  # all at once
        ({"sequences_per_worker": 12, "max_length": 4096}, 4),  # 16,384 tokens keep a GPU busy
        ({"sequences_per_worker": 7, "max_length": 4096}, 1),  # only divisors
        ({"max_length": 32768}, 1),
        ({"micro_batch_size": 3, "sequences_per_worker": 6}, 3),  # the job's word
    ],
)
def test_micro_batches_divide_the_share_and_fill_the_device(changes: dict[str, Any], micro: int) -> None:
    sized = choose(request(method="lora", gradient_checkpointing=True, **changes))
    assert sized.micro_batch_size == micro


def test_micro_batches_fit_the_memory() -> None:
    smaller, larger = (
        choose(request(method="lora", gradient_checkpointing=True, gpu_memory_bytes=size * GB))
        for size in (24, 80)
    )
    assert smaller.estimate is not None and smaller.estimate.worker_bytes <= 0.9 * 24 * GB
    assert smaller.micro_batch_size < larger.micro_batch_size


@pytest.mark.parametrize(
    ("changes", "strategy", "checkpointing"),
    [
        ({}, "fsdp", True),
        ({"workers": 1}, "ddp", True),
        ({"offload": "params"}, "zero3", True),
        (ON_CPU, "ddp", False),
        ({"strategy": "zero2"}, "zero2", True),
    ],
)
def test_an_unknown_size_gets_safe_defaults_and_says_so(
    changes: dict[str, Any], strategy: str, checkpointing: bool
) -> None:
    sized = choose(request(None, **changes))
    assert (sized.strategy, sized.micro_batch_size) == (strategy, 1)
    assert sized.gradient_checkpointing is checkpointing
    assert all("unknown" in derived.reason for derived in sized.derived)
    assert sized.derived[-1].field == "memory"
