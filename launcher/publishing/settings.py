"""How the model was made, for its card: a sentence, and a table of settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from artifacts.contract import (
    MergeParams,
    Plan,
    PrepareParams,
    Product,
    QuantizeParams,
    StageKind,
    TrainParams,
)

PRODUCTS: dict[Product, str] = {
    "model": "the whole model, for transformers and vLLM",
    "adapter": "the adapter alone, for PEFT, on top of the base model",
    "quantized": "the model in GPTQ form, for transformers and vLLM",
    "gguf": "GGUF files, for llama.cpp and Ollama",
}
_METHODS = {
    "full": "fine-tuned in all its weights",
    "partial": "fine-tuned in a part of its weights",
    "lora": "fine-tuned with LoRA",
    "prefix_tuning": "tuned with prefixes",
    "p_tuning_v2": "tuned with P-tuning v2",
    "prompt_tuning": "tuned with a soft prompt",
    "llama_adapter": "fine-tuned with LLaMA-Adapter",
    "ia3": "fine-tuned with IA3",
}
_QUANTIZATIONS = {"nf4": "4 bits (NF4)", "int8": "8 bits (LLM.int8)", "gptq": "GPTQ"}


def summary(plan: Plan, products: Sequence[Product]) -> str:
    """What this is, in one Markdown sentence of our own words."""
    trained = plan.has(StageKind.TRAIN)
    how = f", {_METHODS[plan.stage(StageKind.TRAIN).params.method]}" if trained else ""
    here = "; ".join(PRODUCTS[name] for name in products)
    return f"A language model{how}. Here: {here}. Made with Slipway."


def rows(plan: Plan) -> list[tuple[str, str]]:
    """(setting, value) of training and what came after, without what has no effect."""
    found: list[tuple[str, Any]] = []
    if plan.has(StageKind.TRAIN):
        found += _training(plan.stage(StageKind.TRAIN).params)
    if plan.has(StageKind.TRAIN) and plan.has(StageKind.PREPARE):
        found += _prepare(plan.stage(StageKind.PREPARE).params)
    if plan.has(StageKind.QUANTIZE):
        found += _quantize(plan.stage(StageKind.QUANTIZE).params)
    if plan.has(StageKind.MERGE):
        merge: MergeParams = plan.stage(StageKind.MERGE).params
        found.append(("Bound on the merge's drift", f"{merge.max_drift:g}"))
    return [(name, str(value)) for name, value in found if value not in (None, "", False, [])]


def _training(params: TrainParams) -> Iterator[tuple[str, Any]]:
    yield "Method", params.method
    if lora := params.lora:
        yield "LoRA rank, alpha, dropout", f"{lora.rank}, {lora.alpha}, {lora.dropout:g}"
        targets = lora.target_modules
        yield "LoRA target modules", targets if isinstance(targets, str) else ", ".join(targets)
        variants = [("rsLoRA", lora.rslora), ("DoRA", lora.dora), ("LoRA+", lora.plus_ratio is not None)]
        yield "LoRA variant", ", ".join(name for name, used in variants if used)
        yield "LoRA initialization", lora.init if lora.init != "default" else None
        yield "Modules trained whole", ", ".join(lora.modules_to_save)
    if params.prompt:
        yield "Virtual tokens", params.prompt.virtual_tokens
    yield "Base model while training", _QUANTIZATIONS.get(params.quantization)
    yield "Epochs", None if params.epochs is None else f"{params.epochs:g}"
    yield "Steps", params.steps
    yield "Learning rate", f"{params.learning_rate:g}, {params.schedule}"
    yield "Warm-up steps", params.warmup_steps
    yield "Warm-up", params.warmup_share and f"{100 * params.warmup_share:g} % of the steps"
    yield "Sequences per step", params.sequences_per_step
    yield "Longest sequence", f"{params.max_length} tokens"
    yield "Precision", params.precision
    yield "Optimizer", params.optimizer
    yield "Weight decay", f"{params.weight_decay:g}" if params.weight_decay else None
    yield "Gradient clipping", f"{params.max_grad_norm:g}"
    yield "NEFTune alpha", params.neftune_alpha
    yield "Label smoothing", params.label_smoothing or None
    offload = f", {params.offload} offloaded" if params.offload != "none" else ""
    yield "Workers", f"{params.world_size} × {params.accelerator or 'CPU'}, {params.strategy}{offload}"
    yield "Seed", str(params.seed)


def _prepare(params: PrepareParams) -> Iterator[tuple[str, Any]]:
    yield (
        "Learnt",
        {"assistant": "the assistant's words", "last": "the last answer", "all": "every token"}[
            params.train_on
        ],
    )
    yield "Packing", "documents that never see each other" if params.packing else "none"
    yield "Chat template", params.template.name or ("given by the job" if _has_template(params) else None)


def _has_template(params: PrepareParams) -> bool:
    return bool(params.template.jinja or params.template.pieces)


def _quantize(params: QuantizeParams) -> Iterator[tuple[str, Any]]:
    size = "one scale a row" if params.group_size == -1 else f"groups of {params.group_size}"
    order = ", in order of activation" if params.desc_act else ""
    yield "GPTQ", f"{params.bits} bits, {size}{order}, damping {params.damping:g}"
    sequences = f"{params.calibration_sequences} training sequences of at most {params.calibration_length}"
    yield "GPTQ calibration", f"{sequences} tokens"
