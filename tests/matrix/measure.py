"""Run in a rank: train a cell for two steps, and say what became of every tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.contract import TrainParams
from tests.train import training


def train_cell(root: Path, model: Path, prepared: Path, params: TrainParams) -> dict[str, Any]:
    """Facts of this rank: names of the trained tensors, which of all tensors changed their bits here, how
    many elements lie here, and the losses."""
    from train import loop, metrics, trainer

    seen: dict[str, Any] = {}

    class Watched(trainer.RankTrainer):
        def get_batch_samples(self, *arguments: Any, **keywords: Any) -> Any:
            if "before" not in seen:  # wrapped and sharded, before the first step
                seen["before"] = _tensors(self)
            return super().get_batch_samples(*arguments, **keywords)

        def write_final(self) -> None:
            seen.update(_facts(self, seen.pop("before")))
            super().write_final()

    task = training.task(root, model, prepared, params)
    original, trainer.RankTrainer = trainer.RankTrainer, Watched
    try:
        loop.train_rank(task)
    finally:
        trainer.RankTrainer = original
    return {**seen, "losses": [row["loss"] for row in metrics.merged_from(task.store, task.prefix)]}


def _tensors(trainer: Any) -> dict[str, Any]:
    """What this rank holds of each parameter and buffer, copied."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    return {name: _local(tensor).detach().clone() for name, tensor in named.items() if tensor is not None}


def _local(tensor: Any) -> Any:
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor):
        return tensor.to_local()
    if not hasattr(tensor, "ds_tensor"):
        return tensor
    part = tensor.ds_tensor  # of equal length on each rank, so the last ones' end in padding
    return part[: max(0, tensor.ds_numel - dist.get_rank() * part.numel())]


def _facts(trainer: Any, before: dict[str, Any]) -> dict[str, Any]:
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    model = trainer.accelerator.unwrap_model(trainer.model)
    parameters = dict(model.named_parameters())
    after = _tensors(trainer)
    return {
        "trained": {name for name, parameter in parameters.items() if parameter.requires_grad},
        "shapes": {
            name: tuple(getattr(parameter, "ds_shape", parameter.shape))
            for name, parameter in parameters.items()
        },
        "here": {name: after[name].numel() for name in parameters},
        "changed": {name for name in after if not _same_bits(before[name], after[name])},
        "dtensors": sum(isinstance(parameter, DTensor) for parameter in parameters.values()),
        "optimizer": _optimizer_elements(trainer.optimizer),
        "wrapper": type(trainer.model_wrapped).__name__,
        "in_group": dist.is_initialized(),
        "zero_stage": getattr(trainer.model_wrapped, "zero_optimization_stage", lambda: None)(),
    }


def _same_bits(one: Any, other: Any) -> bool:
    import torch

    return bool(torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)))


def _optimizer_elements(optimizer: Any) -> int:
    """Elements of the largest state of each weight that this rank's optimizer holds, summed."""
    from torch.distributed.tensor import DTensor

    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    total = 0
    for state in optimizer.state.values():
        tensors = [value for value in state.values() if getattr(value, "ndim", 0)]  # no counters of steps
        total += max(
            (t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in tensors), default=0
        )
    return total
