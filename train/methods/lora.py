"""LoRA and its kin: low-rank adapters beside frozen weights (https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from artifacts.contract import LoraParams, TrainParams
from train.methods import quantized, start
from train.methods.tokens import Tokens
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply(model: PreTrainedModel, params: TrainParams, new: Tokens) -> Any:
    """Raises StageUserError where the adapters don't fit the model."""
    from peft import get_peft_model

    assert params.lora is not None, "the plan sets lora for method lora"
    if params.lora.dora and params.lora.init != "default":
        raise StageUserError(
            f"an adapter with magnitudes (dora) that starts from the base ({params.lora.init}) can't be told "
            "apart from it again",
            "leave one of method.dora and method.init out",
        )
    tied = _tied_modules(model)
    try:
        adapted = get_peft_model(model, _config(model, params, params.lora, new))
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
    if tied and params.strategy == "fsdp":
        _part(adapted)
    if params.lora.init == "loftq":
        start.compensate_quantization(adapted, Path(model.name_or_path))
    if params.lora.init != "default":
        start.remember(adapted)
    return adapted


def _config(model: PreTrainedModel, params: TrainParams, lora: LoraParams, new: Tokens) -> Any:
    from peft import LoraConfig

    targets = lora.target_modules
    if targets == "all-linear" and params.quantization == "gptq":
        targets = quantized.linear_names(model)
    whole, rows = _embeddings(model, params, lora, new)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=lora.init if lora.init in ("pissa", "olora") else True,
        modules_to_save=whole or None,
        trainable_token_indices=rows or None,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _embeddings(
    model: PreTrainedModel, params: TrainParams, lora: LoraParams, new: Tokens
) -> tuple[list[str], dict[str, list[int]]]:
    """Modules that are trained whole, and rows by module that are trained of others. New tokens are learnt by
    their rows alone; where weights are split, rows can't be picked from them (huggingface/peft#2603), and the
    whole embedding and head are trained."""
    whole, ids = list(lora.modules_to_save), sorted({*new.added.values(), *new.trained.values()})
    modules = {id(m): n for n, m in model.named_modules() if m is not None}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = [modules[id(module)].rpartition(".")[2] for module in (embedding, head) if module is not None]
    untrained = [name for name in names if name not in whole]
    if not ids or not untrained:
        return whole, {}
    if params.strategy in ("fsdp", "zero3"):
        return [*whole, *untrained], {}
    if head is not None and head.weight is embedding.weight:
        untrained = untrained[:1]  # PEFT trains the head's rows with those that it shares
    return whole, dict.fromkeys(untrained, ids)


def _tied_modules(model: PreTrainedModel) -> set[str]:
    """Names of the input embedding and output head where they share one weight."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return set()
    return {name for name, module in model.named_modules() if module is embedding or module is head}


def _part(adapted: Any) -> None:
    """Give a head that is trained whole beside its embedding a frozen weight of its own: FSDP shards the two
    modules apart, and refuses a weight that both have."""
    head, embedding = adapted.get_output_embeddings(), adapted.get_input_embeddings()
    originals = [getattr(module, "original_module", None) for module in (head, embedding)]
    if all(originals):
        original = originals[0]
        original.weight = nn.Parameter(original.weight.detach().clone(), requires_grad=False)


def optimizer_groups(model: Any, params: TrainParams) -> list[dict[str, Any]] | None:
    """LoRA+: parameter groups in which every B learns `plus_ratio` times as fast as its A
    (https://arxiv.org/abs/2402.12354). None where the method has no groups of its own."""
    if params.lora is None or params.lora.plus_ratio is None:
        return None
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fast = {name for name in trained if ".lora_B." in name or ".lora_embedding_B." in name}
    rates = {True: params.learning_rate * params.lora.plus_ratio, False: params.learning_rate}
    return [
        {
            "params": [p for name, p in trained.items() if (name in fast) == is_fast],
            "lr": rate,
            "weight_decay": params.weight_decay,
        }
        for is_fast, rate in rates.items()
    ]
