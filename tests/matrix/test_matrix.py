"""Every cell of the matrix: the allowed ones are trained, the others refused by the plan."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from launcher.errors import UserError
from launcher.planning import matrix
from launcher.planning.matrix import Cell
from tests.matrix import cells, declared, measure
from tests.matrix.conftest import Planner, Pools

ALLOWED = sorted(
    (cell for cell in cells.all_cells() if matrix.refusal(cell) is None),
    key=lambda cell: matrix.QUANTIZATIONS.index(cell.quantization),  # which shares ranks
)
FORBIDDEN = [cell for cell in cells.all_cells() if matrix.refusal(cell) is not None]

pytestmark = pytest.mark.timeout(600)  # of which all but seconds may be the libraries' import

#: Elements by which ZeRO pads what it splits.
ALIGNMENT = 16

#: Losses of the first step, by base, data and precision.
_FIRST_LOSSES: dict[tuple[object, ...], float] = {}

#: What `make test` trains: each method, strategy, precision and optimizer family at least once.
DIAGONAL = (
    Cell(method="full", strategy="fsdp", packing=True),
    Cell(method="full", strategy="single", precision="bf16"),
    Cell(method="partial", strategy="zero2", options=frozenset({"extra_layers"})),
    Cell(method="lora", strategy="zero3", packing=True, precision="bf16"),
    Cell(method="prefix_tuning", strategy="ddp"),
    Cell(method="p_tuning_v2", strategy="zero1", precision="bf16"),
    Cell(method="prompt_tuning", strategy="fsdp"),
    Cell(method="llama_adapter", strategy="zero2", packing=True),
    Cell(method="ia3", strategy="ddp", packing=True, precision="bf16"),
    Cell(method="lora", strategy="zero1", packing=True, precision="bf16", quantization="nf4"),
)


@pytest.mark.matrix
@pytest.mark.parametrize("cell", [cell for cell in ALLOWED if cell not in DIAGONAL], ids=cells.name)
def test_cell(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    check(cell, root, pools, make_plan)


@pytest.mark.parametrize("cell", DIAGONAL, ids=cells.name)
def test_diagonal(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    check(cell, root, pools, make_plan)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "cell", [cell for cell in cells.gpu_cells() if matrix.refusal(cell) is None], ids=cells.name
)
def test_gpu_cell(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    """Over as many GPUs as there are, up to two."""
    import torch

    check(cell, root, pools, make_plan, min(cells.RANKS, torch.cuda.device_count()))


def check(cell: Cell, root: Path, pools: Pools, make_plan: Planner, ranks: int = cells.RANKS) -> None:
    """Train the cell as its plan says; hold what every rank saw against what the cell means."""
    plan = make_plan(cell, ranks)
    params, packing = plan.stage(StageKind.TRAIN).params, plan.stage(StageKind.PREPARE).params.packing
    assert (params.method, params.strategy, params.quantization, params.precision, packing) == (
        cell.method, cell.strategy, cell.quantization, cell.precision, cell.packing,
    )  # fmt: skip
    model = root / ("gptq" if cell.quantization == "gptq" else "model")
    folder = root / "runs" / cells.name(cell)
    prepared = root / ("packed" if cell.packing else "unpacked")
    facts = pools.run(params, measure.train_cell, folder, model, prepared, params)
    shutil.rmtree(folder)
    wanted = declared.trained(cell, facts[0]["shapes"])
    assert wanted
    for rank, fact in enumerate(facts):
        assert fact["trained"] == wanted
        assert fact["changed"] == {name for name in wanted if fact["here"][name]}
        assert fact["here"] == {
            name: elements_here(cell, shape, rank, len(facts)) for name, shape in fact["shapes"].items()
        }
    check_losses(cell, facts[0]["losses"])
    check_strategy(cell, facts)
    check_optimizer(cell, facts, {name: math.prod(facts[0]["shapes"][name]) for name in wanted})


def check_losses(cell: Cell, losses: list[float]) -> None:
    """Two finite ones, the first that of every other cell with the same base, data and precision: methods
    start as the base model does, whatever the strategy."""
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    if cell.method in matrix.PREFIX_LIKE or "loftq" in cell.options:  # start elsewhere
        return
    base = (cell.device, cell.quantization, cell.precision, cell.packing)
    first = _FIRST_LOSSES.setdefault(base, losses[0])
    assert losses[0] == pytest.approx(first, rel=1e-3 if cell.precision == "fp32" else 2e-2)


def elements_here(cell: Cell, shape: tuple[int, ...], rank: int, ranks: int) -> int:
    """How many elements of a tensor a rank holds: its part of the rows (FSDP2), of all elements (ZeRO-3), or
    all."""
    if cell.strategy == "fsdp":
        return _part(shape[0], rank, ranks) * math.prod(shape[1:])
    return _part(math.prod(shape), rank, ranks) if cell.strategy == "zero3" else math.prod(shape)


def _part(count: int, rank: int, ranks: int) -> int:
    each = math.ceil(count / ranks)
    return max(0, min(each, count - rank * each))


def check_strategy(cell: Cell, facts: list[dict[str, Any]]) -> None:
    for fact in facts:
        assert fact["in_group"] == (cell.strategy != "single")
        assert (fact["wrapper"] == "DistributedDataParallel") == (cell.strategy == "ddp")
        assert fact["dtensors"] == (len(fact["shapes"]) if cell.strategy == "fsdp" else 0)
        assert fact["zero_stage"] == {"zero1": 1, "zero2": 2, "zero3": 3}.get(cell.strategy)


def check_optimizer(cell: Cell, facts: list[dict[str, Any]], trained: dict[str, int]) -> None:
    """The optimizer's state lies where the weights do, or is split (ZeRO)."""
    if cell.optimizer == "adafactor":  # keeps sums of rows and columns
        return
    for fact in facts:
        whole = sum(fact["here"][name] for name in trained)
        if cell.strategy in ("zero1", "zero2"):
            assert fact["optimizer"] <= 0.5 * whole + 2 * ALIGNMENT
        elif cell.strategy == "zero3":
            assert whole <= fact["optimizer"] <= whole + 2 * ALIGNMENT
        else:
            assert fact["optimizer"] == whole


@pytest.mark.matrix
@pytest.mark.parametrize("cell", FORBIDDEN, ids=cells.name)
def test_refused(cell: Cell, make_plan: Planner) -> None:
    check_refused(cell, make_plan)


def check_refused(cell: Cell, make_plan: Planner) -> None:
    with pytest.raises(UserError) as refused:
        make_plan(cell)
    told = [(problem.what.partition(":")[0], problem.why) for problem in refused.value.problems]
    for refusal in matrix.refusals(cell):
        assert (refusal.field, refusal.why) in told
