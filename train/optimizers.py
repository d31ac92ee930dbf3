"""The optimizer of a training: transformers' name for it, and which weights it treats how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import Replicate

from artifacts.contract import TrainParams
from train import methods

#: transformers' names (`OptimizerNames`). The 8-bit and paged ones are bitsandbytes'.
NAMES = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
}

Group = dict[str, Any]


def groups(model: nn.Module, params: TrainParams, decayed: Iterable[str]) -> list[Group]:
    """Parameter groups of what is trained: those of the method where it has some of its own (LoRA+), else the
    weights that decay and those that don't (norms, biases). `decayed` names the former."""
    own = methods.optimizer_groups(model, params)
    if own is not None:
        return own
    names = set(decayed)
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [w for name, w in trained if name in names], "weight_decay": params.weight_decay},
        {"params": [w for name, w in trained if name not in names], "weight_decay": 0.0},
    ]


def for_strategy(kind: type[torch.optim.Optimizer], params: TrainParams) -> type[torch.optim.Optimizer]:
    """The optimizer's class as the strategy needs it: transformers' Adafactor makes whole averages, also for
    weights of which FSDP left it a part."""
    return _sharded(kind) if params.optimizer == "adafactor" and params.strategy == "fsdp" else kind


def _sharded(adafactor: type[Any]) -> type[torch.optim.Optimizer]:
    class ShardedAdafactor(adafactor):
        """Row averages are spread as the weights are, column averages are on every rank."""

        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None and not self.state[weight]:
                        self.state[weight] = self._averages(weight.grad, group)
            return super().step(closure)

        def _averages(self, gradient: Any, group: Group) -> dict[str, Any]:
            factored, first_moment = self._get_options(group, gradient.shape)
            zeros = torch.zeros_like(gradient)
            state: dict[str, Any] = {"step": 0, "RMS": 0}
            if first_moment:
                state["exp_avg"] = zeros
            if not factored:
                return state | {"exp_avg_sq": zeros}
            everywhere = [Replicate()] * gradient.device_mesh.ndim
            return state | {
                "exp_avg_sq_row": zeros.mean(-1),
                "exp_avg_sq_col": zeros.mean(-2).redistribute(placements=everywhere),
            }

        @staticmethod
        def _rms(tensor: Any) -> Any:
            return adafactor._rms(tensor).full_tensor()

    return ShardedAdafactor


def keep_embeddings_exact(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Embeddings' state stays in 32 bits: their gradients are too unequal for 8 (bitsandbytes' own advice,
    https://huggingface.co/docs/bitsandbytes/optimizers)."""
    if not type(optimizer).__module__.startswith("bitsandbytes"):
        return
    from bitsandbytes.optim import GlobalOptimManager

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            GlobalOptimManager.get_instance().register_module_override(module, "weight", {"optim_bits": 32})
