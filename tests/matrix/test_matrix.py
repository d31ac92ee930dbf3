"""Every cell of the matrix: the allowed ones are trained, the others refused by the plan."""

from __future__ import annotations

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

#: What `make test` trains: each method, strategy, quantization and precision at least once.
DIAGONAL = (
    Cell(method="full", strategy="fsdp", packing=True),
    Cell(method="lora", strategy="zero3", packing=True, precision="bf16"),
)


@pytest.mark.matrix
@pytest.mark.parametrize("cell", [cell for cell in ALLOWED if cell not in DIAGONAL], ids=cells.name)
def test_cell(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    check(cell, root, pools, make_plan)


@pytest.mark.parametrize("cell", DIAGONAL, ids=cells.name)
def test_diagonal(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    check(cell, root, pools, make_plan)


def check(cell: Cell, root: Path, pools: Pools, make_plan: Planner) -> None:
    """Train the cell as its plan says; hold what every rank saw against what the cell means."""
    plan = make_plan(cell)
    params, packing = plan.stage(StageKind.TRAIN).params, plan.stage(StageKind.PREPARE).params.packing
    assert (params.method, params.strategy, params.quantization, params.precision, packing) == (
        cell.method, cell.strategy, cell.quantization, cell.precision, cell.packing,
    )  # fmt: skip
    model = root / ("gptq" if cell.quantization == "gptq" else "model")
    folder = root / "runs" / cells.name(cell)
    prepared = root / ("packed" if cell.packing else "unpacked")
    facts = pools.run(params, measure.train_cell, folder, model, prepared, params)
    shutil.rmtree(folder)
    wanted = declared.trained(cell, facts[0]["parameters"])
    assert wanted
    for fact in facts:
        assert fact["trained"] == wanted
        held = {name for name in wanted if fact["here"][name]}
        assert fact["changed"] == held
        assert len(facts[0]["losses"]) == 2
    check_spread(cell, facts, wanted)


def check_spread(cell: Cell, facts: list[dict[str, Any]], wanted: set[str]) -> None:
    """The strategy is what it says: who holds how much of the weights and of the optimizer's state."""
    whole = sum(facts[0]["parameters"].values())
    trained = sum(facts[0]["parameters"][name] for name in wanted)
    weights = [sum(fact["here"].values()) for fact in facts]
    states = [fact["optimizer"] for fact in facts]
    wrappers = {fact["wrapper"] for fact in facts}
    if cell.strategy == "single":
        assert not facts[0]["in_group"]
    if cell.strategy in ("single", "ddp"):
        assert weights == [whole] * len(facts)
    if cell.strategy == "ddp":
        assert wrappers == {"DistributedDataParallel"}
    if cell.strategy == "fsdp":
        assert {fact["dtensors"] for fact in facts} == {len(facts[0]["parameters"])}
    if cell.strategy in ("fsdp", "zero3"):
        assert sum(weights) <= 1.05 * whole + 2 * len(facts[0]["parameters"]), "padded to the ranks at most"
        assert max(weights) <= 0.6 * whole
    if cell.strategy.startswith("zero"):
        assert {f"zero{fact['zero_stage']}" for fact in facts} == {cell.strategy}
    if cell.strategy not in ("single", "ddp") and cell.optimizer != "adafactor":
        assert sum(states) <= 1.1 * trained + 2 * len(wanted)
        assert max(states) <= 0.6 * trained + len(wanted)


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
