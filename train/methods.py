"""What is trained: every weight, or low-rank adapters beside frozen ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from artifacts.contract import LoraParams, TrainParams
from train import lean_peft
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def weights_dtype(params: TrainParams) -> torch.dtype:
    """In what the base weights are held. Trained weights need float32 (a bfloat16 weight swallows updates
    below 1/256 of itself); frozen ones are only read, in the precision that the products use."""
    return torch.float32 if params.method == "full" else DTYPES[params.precision]


def apply(model: PreTrainedModel, params: TrainParams) -> Any:
    """The model to train: `model` itself, or a PEFT model around it, with exactly the declared parameters
    requiring gradients. Draws adapters' random weights from torch's global generator.

    Raises StageUserError where the method does not fit the model.
    """
    if params.method == "full":
        model.requires_grad_(True)
        return model
    assert params.lora is not None, "the plan sets lora for method lora"
    return _with_lora(model, params.lora)


def trainable_names(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _with_lora(model: PreTrainedModel, lora: LoraParams) -> Any:
    lean_peft.prepare()
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    tied = _tied_modules(model)
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise StageUserError(
            f"LoRA does not fit {type(model).__name__}: {str(error).splitlines()[0]}",
            "set method.target_modules to `all-linear` or to names of its linear layers",
        ) from error
    if refused := sorted(tied & set(adapted.targeted_module_names)):
        raise StageUserError(
            f"LoRA on {refused[0]}, which shares its weight with another module (tied embeddings): an "
            "adapter of one can't be merged into both",
            "leave it out of method.target_modules",
        )
    _check_trainable(adapted)
    return adapted


def _tied_modules(model: PreTrainedModel) -> set[str]:
    """Names of the input embedding and output head where they share one weight."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return set()
    return {name for name, module in model.named_modules() if module is embedding or module is head}


def _check_trainable(adapted: Any) -> None:
    declared = {name for name, _ in adapted.named_parameters() if ".lora_" in name}
    if difference := declared ^ trainable_names(adapted) or not declared:
        raise AssertionError(f"not exactly the adapters are trained: {difference}")
