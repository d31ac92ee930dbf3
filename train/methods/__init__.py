"""What is trained: every weight, some of the model's own, or small new ones beside frozen ones.

Each family of methods has a module here. `apply` is the way in; `train.weights` saves what it returns, and
`load_adapter` puts a saved adapter on its base again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from artifacts.contract import Method, TrainParams
from train import lean_peft
from train.data.new_tokens import require_learnable
from train.dtypes import DTYPES
from train.methods import adaption, ia3, lora, partial, prompts, quantized, tokens
from train.methods.tokens import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Tokens",
    "apply",
    "has_virtual_tokens",
    "load_adapter",
    "optimizer_groups",
    "quantization_config",
    "trainable_names",
    "weights_dtype",
]

_APPLY = {
    "full": partial.apply_full,
    "partial": partial.apply,
    "lora": lora.apply,
    "ia3": ia3.apply,
    "prefix_tuning": prompts.apply,
    "p_tuning_v2": prompts.apply,
    "prompt_tuning": prompts.apply,
    "llama_adapter": adaption.apply,
}
optimizer_groups = lora.optimizer_groups
quantization_config = quantized.config


def has_virtual_tokens(method: Method) -> bool:
    """Whether tokens in front of every sequence are trained."""
    return method in ("prefix_tuning", "p_tuning_v2", "prompt_tuning")


def weights_dtype(params: TrainParams) -> torch.dtype:
    """In what the base weights are held. Trained weights need float32 (a bfloat16 weight swallows updates
    below 1/256 of itself); frozen ones are only read, in the precision that the products use."""
    return torch.float32 if params.method == "full" else DTYPES[params.precision]


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens | None = None) -> Any:
    """The model to train: `model` itself, or a PEFT model around it, with exactly the declared parameters
    requiring gradients. `new` names the tokens whose embeddings are new or trained. Draws random weights from
    torch's global generator.

    Raises StageUserError where the method does not fit the model.
    """
    lean_peft.prepare(params.quantization)
    new = new or Tokens()
    require_learnable(new.added, params.method)
    tokens.resize(model, new.added)
    quantized.keep_trainable(model)
    adapted = _APPLY[params.method](model, params, new)
    _check_trainable(adapted)
    return adapted


def trainable_names(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_adapter(model: PreTrainedModel, adapter: Path) -> Any:
    """The base `model` with the adapter of that folder (written by `train.weights.write_adapter`), its
    embeddings grown for tokens that the adapter brings."""
    lean_peft.prepare(quantized.of_model(model))
    from peft import PeftModel

    adaption.register()
    tokens.make_room(model, adapter)
    return PeftModel.from_pretrained(model, adapter)


def _check_trainable(model: Any) -> None:
    if not trainable_names(model):
        raise AssertionError("nothing is trained")
