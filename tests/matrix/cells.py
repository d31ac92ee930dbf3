"""Every cell of docs/matrix.md that concerns machines without a GPU, as jobs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from launcher.planning import matrix
from launcher.planning.matrix import Cell, Option

RANKS = 2
#: What a job writes for each option of a method.
OPTION_FIELDS: dict[Option, dict[str, Any]] = {
    "head": {"train": "head"},
    "last_layers": {"last_layers": 1},
    "extra_layers": {"extra_layers": 1},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "loftq": {"init": "loftq"},
    "plus_ratio": {"plus_ratio": 4.0},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "trainable_tokens": {"trainable_tokens": ["B"]},
}


def name(cell: Cell) -> str:
    """`lora+dora-zero3-nf4-packed-bf16`: what the cell is, for the test's id."""
    usual = Cell(method=cell.method)
    method = "+".join([cell.method, *sorted(cell.options)])
    parts = [method, cell.strategy, cell.precision, "packed" if cell.packing else "unpacked"]
    parts += ["gpu"] if cell.device == "gpu" else []
    parts += [cell.quantization] if cell.quantization != "none" else []
    parts += [cell.optimizer] if cell.optimizer != usual.optimizer else []
    parts += ["recomputing"] if cell.gradient_checkpointing else []
    return "-".join(parts)


def all_cells() -> list[Cell]:
    """The whole product of the main axes; the others one at a time, beside every strategy."""
    return list(dict.fromkeys((*_main(), *_options(), *_optimizers(), *_checkpointing())))


def gpu_cells() -> list[Cell]:
    """What cores can't run, and each method and quantization on a GPU in its usual precision."""
    axes = itertools.product(_plain_methods(), matrix.STRATEGIES, matrix.QUANTIZATIONS, ("bf16", "fp16"))
    return [
        dataclasses.replace(
            cell, strategy=strategy, quantization=quantization, precision=precision, device="gpu"
        )  # type: ignore[arg-type]
        for cell, strategy, quantization, precision in axes
    ]


def _plain_methods() -> Iterator[Cell]:
    for method in matrix.METHODS:
        if method == "partial":  # one of its three is always asked for
            yield from (
                Cell(method=method, options=frozenset({option})) for option in matrix.OPTIONS["partial"]
            )
        else:
            yield Cell(method=method)


def _main() -> Iterator[Cell]:
    axes = itertools.product(
        _plain_methods(), matrix.STRATEGIES, matrix.QUANTIZATIONS, (False, True), matrix.PRECISIONS
    )
    for cell, strategy, quantization, packing, precision in axes:
        yield dataclasses.replace(
            cell, strategy=strategy, quantization=quantization, packing=packing, precision=precision
        )


def _options() -> Iterator[Cell]:
    for option, strategy, quantization in itertools.product(
        matrix.OPTIONS["lora"], matrix.STRATEGIES, matrix.QUANTIZATIONS
    ):
        options = frozenset({option})
        yield Cell(method="lora", options=options, strategy=strategy, quantization=quantization, packing=True)


def _optimizers() -> Iterator[Cell]:
    for optimizer, strategy, method in itertools.product(
        matrix.OPTIMIZERS, matrix.STRATEGIES, ("full", "lora")
    ):
        yield Cell(method=method, strategy=strategy, optimizer=optimizer, packing=True)  # type: ignore[arg-type]


def _checkpointing() -> Iterator[Cell]:
    for cell, strategy in itertools.product(_plain_methods(), matrix.STRATEGIES):
        yield dataclasses.replace(cell, strategy=strategy, gradient_checkpointing=True)
    for quantization in matrix.QUANTIZATIONS:
        yield Cell(method="lora", quantization=quantization, gradient_checkpointing=True)


def sections(cell: Cell, ranks: int = RANKS) -> dict[str, Any]:
    """The sections of a job that asks for the cell (its model beside), over that many workers where its
    strategy has several."""
    method: dict[str, Any] = {"type": cell.method}
    if cell.quantization in ("nf4", "int8"):
        method["quantization"] = cell.quantization
    if cell.method == "lora":
        method |= {"rank": 4}
    if cell.method == "llama_adapter":
        method |= {"adapter_layers": 2}
    if cell.method in matrix.PREFIX_LIKE or cell.method == "llama_adapter":
        method |= {"virtual_tokens": 3}
    for option in cell.options:
        method |= OPTION_FIELDS[option]
    return {
        "method": method,
        "strategy": cell.strategy,
        "compute": {"workers": 1 if cell.strategy == "single" else ranks},
        "training": {
            "steps": 2,
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.01,
            "global_batch_size": 4,
            "micro_batch_size": 2,
            "max_length": 48,
            "precision": cell.precision,
            "packing": cell.packing,
            "optimizer": cell.optimizer,
            "gradient_checkpointing": cell.gradient_checkpointing,
        },
        "after": ["merge"] if cell.merge else [],
    }
