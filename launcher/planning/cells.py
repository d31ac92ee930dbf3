"""A job held against the matrix: what follows from it is derived, what it rules out is refused."""

from __future__ import annotations

import dataclasses
from functools import reduce
from typing import Any

from artifacts.contract import Strategy
from launcher.planning import matrix
from launcher.planning.findings import Findings
from launcher.planning.matrix import Cell, Refusal
from launcher.spec.products import AFTER, After

#: Stages that take the merged model.
_OF_WHOLE_MODELS = ("quantize", "gguf", "predict")


def packing(found: Findings, cell: Cell) -> bool:
    """Whether records are packed: as the job says, else where documents stay apart."""
    training = found.job.training
    if training.given("packing"):
        return training.packing
    if refusal := _against(cell, "training.packing", packing=True):
        found.say("training.packing", False, refusal.why)
        return False
    return training.packing


def never_recomputes(found: Findings, cell: Cell) -> bool:
    """Whether gradient checkpointing, which the job leaves open, can't be had."""
    if found.job.training.gradient_checkpointing != "auto":
        return False
    refusal = _against(cell, "training.gradient_checkpointing", gradient_checkpointing=True)
    if refusal is not None:
        found.say("training.gradient_checkpointing", False, refusal.why)
    return refusal is not None


def after(found: Findings, cell: Cell) -> list[After]:
    """The stages after training, in their order."""
    wanted, has_test = found.job.after, found.job.data.test is not None
    refusal = _against(cell, "after", merge=True)
    if wanted is None:
        stages: list[After] = [*(() if refusal else ("merge",)), *(("predict",) if has_test else ())]
        reason = "the default where there is data.test" if has_test else "the default without data.test"
        reasons = [f"no merge: {refusal.why}" if refusal else reason]
    else:
        stages, reasons = sorted(wanted, key=AFTER.index), []
        needs = [stage for stage in stages if stage in _OF_WHOLE_MODELS]
        if needs and "merge" not in stages and not (needs == ["predict"] and (refusal or is_whole(cell))):
            stages.insert(0, "merge")
            reasons.append(f"{needs[0]} takes the merged model")
    if cell.quantization == "gptq" and "merge" in stages and "quantize" not in stages:
        stages.insert(1, "quantize")
        reasons.append("the base is quantized: merged into merge.original, its adapter is quantized again")
    if reasons:
        found.say("after", stages, "; ".join(reasons))
    return stages


def is_whole(cell: Cell) -> bool:
    """What training leaves is a model, not an adapter beside one."""
    return cell.method not in matrix.ADAPTERS


def fitting_strategies(cell: Cell) -> frozenset[Strategy]:
    """Those that the rest of the cell goes with."""
    return frozenset(
        strategy
        for strategy in matrix.STRATEGIES
        if not set(matrix.refusals(dataclasses.replace(cell, strategy=strategy))) - _elsewhere(cell)
    )


def refuse(found: Findings, cell: Cell, *, strategy_is_open: bool) -> None:
    """Every reason against the job's cell. Where the strategy is open, only those that hold for each."""
    holding = _elsewhere(cell) if strategy_is_open else set(matrix.refusals(cell))
    for one in matrix.refusals(cell):
        if one in holding:
            found.refuse(one.field, _written(found, one.field), one.why, one.way_out)


def _elsewhere(cell: Cell) -> set[Refusal]:
    """What speaks against the cell whatever its strategy is."""
    each = (
        set(matrix.refusals(dataclasses.replace(cell, strategy=strategy))) for strategy in matrix.STRATEGIES
    )
    return reduce(set.intersection, each)


def _against(cell: Cell, field: str, **change: bool) -> Refusal | None:
    """The reason that blames `field` once the cell has the change."""
    changed = dataclasses.replace(cell, **change)  # type: ignore[arg-type]
    return next((one for one in matrix.refusals(changed) if one.field == field), None)


def _written(found: Findings, field: str) -> Any:
    """The job's value of a field, as its file would write it."""
    value = reduce(getattr, field.split("."), found.job)
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value
