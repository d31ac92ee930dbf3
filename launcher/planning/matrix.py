"""The one table of what goes together: method × strategy × quantization × packing × precision, and how
optimizers, gradient checkpointing, options of a method and merging fit in.

`RULES` names every combination that is refused, with its reason, the way out and where the reason comes from;
what no rule names works, and tests/matrix trains it. The planner refuses with it (`planning.cells`), and
docs/matrix.md is written from it (`planning.matrix_page`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from artifacts.contract import Method, Optimizer, Precision, Quantization, Strategy

METHODS: tuple[Method, ...] = get_args(Method)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)

Device = Literal["cpu", "gpu"]
#: Variants of a method that have rules of their own; each is a field of section `method`.
Option = Literal[
    "head",
    "last_layers",
    "extra_layers",
    "rslora",
    "dora",
    "pissa",
    "olora",
    "loftq",
    "plus_ratio",
    "modules_to_save",
    "trainable_tokens",
]
OPTIONS: dict[Method, tuple[Option, ...]] = {
    "partial": ("head", "last_layers", "extra_layers"),
    "lora": (
        "rslora",
        "dora",
        "pissa",
        "olora",
        "loftq",
        "plus_ratio",
        "modules_to_save",
        "trainable_tokens",
    ),
}

#: Virtual tokens in front of every sequence.
PREFIX_LIKE: frozenset[Method] = frozenset({"prefix_tuning", "p_tuning_v2", "prompt_tuning"})
#: What is saved is an adapter beside the base, not a model.
ADAPTERS: frozenset[Method] = frozenset(METHODS) - {"full", "partial"}

_SHARDING = ("fsdp", "zero3")  # strategies that split the weights themselves
_DEEPSPEED = ("zero1", "zero2", "zero3")
_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
_PAGED = ("paged_adamw", "paged_adamw_8bit")
#: `model_type`s in which packed documents see each other (tried: a neighbour's tokens move the logits).
LEAKING = ("bloom", "falcon", "mpt", "qwen3_next")
#: `model_type`s whose attention LLaMA-Adapter knows (`train.methods.adaption`).
ADAPTION_PROMPT = ("llama", "mistral", "qwen2", "qwen3", "gemma", "glm")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to train. `architecture` is config.json's `model_type`, "" where it is not known."""

    method: Method
    strategy: Strategy = "ddp"
    quantization: Quantization = "none"
    packing: bool = False
    precision: Precision = "fp32"
    device: Device = "cpu"
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: bool = False
    merge: bool = False
    original: bool = False  # merge.original names the unquantized model
    options: frozenset[Option] = frozenset()
    architecture: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why a cell is refused, and what to do instead. `field` is the one of the job to blame."""

    field: str
    why: str
    way_out: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Refuses cells whose every axis named in `when` has one of the values there, and none in `unless`."""

    when: Mapping[str, Collection[object]]
    refusal: Refusal
    unless: Mapping[str, Collection[object]] = field(default_factory=dict)

    def refuses(self, cell: Cell) -> bool:
        return all(_has(cell, axis, values) for axis, values in self.when.items()) and not any(
            _has(cell, axis, values) for axis, values in self.unless.items()
        )


def refusals(cell: Cell) -> Iterator[Refusal]:
    """Every reason against `cell`; none where it works."""
    return (rule.refusal for rule in RULES if rule.refuses(cell))


def refusal(cell: Cell) -> Refusal | None:
    """The first reason against `cell`; None where it works."""
    return next(refusals(cell), None)


def _has(cell: Cell, axis: str, values: Collection[object]) -> bool:
    value = getattr(cell, axis)
    return any(one in values for one in value) if isinstance(value, frozenset) else value in values


def _rule(
    why: str,
    way_out: str,
    source: str,
    blames: str,
    *,
    unless: Mapping[str, Collection[object]] | None = None,
    **when: Collection[object],
) -> Rule:
    return Rule(when=when, unless=unless or {}, refusal=Refusal(blames, why, way_out, source))


_TRIED = "tried with the versions of requirements/train.lock"

RULES: tuple[Rule, ...] = (
    # -- method × quantization
    _rule(
        "weights of 4 or 8 bits can't be trained: they have no gradients",
        "use method lora, or an unquantized base",
        "bitsandbytes and GPTQ hold integers",
        "method.type",
        method=("full", "partial"),
        quantization=("nf4", "int8", "gptq"),
    ),
    _rule(
        "virtual tokens are trained beside an unquantized base alone",
        "use method lora, or an unquantized base",
        "no peer trains it; not tried here",
        "method.type",
        method=(*PREFIX_LIKE, "llama_adapter"),
        quantization=("nf4", "int8", "gptq"),
    ),
    _rule(
        "IA3 has no layer for GPTQ weights",
        "use method lora, or an unquantized base",
        "peft 0.21 peft/tuners/ia3: bitsandbytes layers alone",
        "method.type",
        method=("ia3",),
        quantization=("gptq",),
    ),
    # -- quantization × strategy
    _rule(
        "ZeRO-3 splits the packed bytes of 4-bit weights, whose scales stay behind",
        "use strategy fsdp, or ddp, zero1 or zero2",
        "bitsandbytes Params4bit.quant_state is no parameter; not tried here",
        "strategy.type",
        quantization=("nf4",),
        strategy=("zero3",),
    ),
    _rule(
        "8-bit weights keep their scales outside of what fsdp and zero3 split",
        "use strategy ddp, zero1 or zero2",
        "bitsandbytes Int8Params.SCB is no parameter",
        "strategy.type",
        quantization=("int8",),
        strategy=_SHARDING,
    ),
    _rule(
        "GPTQ weights are buffers, which fsdp and zero3 don't split",
        "use strategy ddp, zero1 or zero2",
        "LLaMA-Factory refuses it too (model_utils/quantization.py)",
        "strategy.type",
        quantization=("gptq",),
        strategy=_SHARDING,
    ),
    # -- packing
    _rule(
        "packed documents would see each other: the prefix stands in the cache, and with a cache positions "
        "that restart mean nothing",
        "leave packing out, or use method lora",
        "tried: a neighbour's tokens move the logits",
        "training.packing",
        method=PREFIX_LIKE,
        packing=(True,),
    ),
    _rule(
        "packed documents would see each other in this architecture",
        "leave packing out",
        "tried: a neighbour's tokens move the logits (train/data/isolation.py)",
        "training.packing",
        architecture=LEAKING,
        packing=(True,),
    ),
    # -- precision
    _rule(
        "fp16 needs a GPU",
        "use bf16, fp32 or auto",
        "DeepSpeed refuses it, accelerate silently trains in fp32",
        "training.precision",
        precision=("fp16",),
        device=("cpu",),
    ),
    # -- gradient checkpointing
    _rule(
        "recomputed layers would get the prefix twice: the cache already holds it",
        "leave gradient_checkpointing out",
        "huggingface/peft#869, #2821; tried: shape errors on Llama, Qwen2 and Qwen3",
        "training.gradient_checkpointing",
        method=PREFIX_LIKE,
        gradient_checkpointing=(True,),
    ),
    # -- optimizers
    _rule(
        "bitsandbytes' optimizers don't know FSDP2's split tensors",
        "use optimizer adamw, or strategy zero2",
        "axolotl refuses it too (utils/schemas/validation.py)",
        "training.optimizer",
        optimizer=(*_EIGHT_BIT, *_PAGED),
        strategy=("fsdp",),
    ),
    _rule(
        "ZeRO gives its optimizer flat slices, which have no rows and columns to factor",
        "use optimizer adamw or adamw_8bit, or strategy ddp or fsdp",
        "deepspeed 0.19 runtime/zero/stage_1_and_2.py, stage3.py",
        "training.optimizer",
        optimizer=("adafactor",),
        strategy=_DEEPSPEED,
    ),
    # -- options of a method
    _rule(
        "on CPUs 8-bit weights lose their scales when DoRA unpacks them",
        "leave dora out, or use quantization: nf4",
        "tried: peft 0.21 peft/utils/integrations.py dequantize_module_weight",
        "method.dora",
        options=("dora",),
        quantization=("int8",),
        device=("cpu",),
    ),
    _rule(
        "GPTQ layers know no DoRA",
        "leave dora out",
        "peft 0.21 peft/tuners/lora/gptq.py",
        "method.dora",
        options=("dora",),
        quantization=("gptq",),
    ),
    _rule(
        "it starts from the base's own weights, unquantized",
        "use init: loftq with quantization: nf4, or leave init out",
        "peft 0.21 peft/tuners/lora/layer.py: pissa_init and olora_init need floating-point weights",
        "method.init",
        options=("pissa", "olora"),
        quantization=("nf4", "int8", "gptq"),
    ),
    _rule(
        "LoftQ makes up for quantization to 4 bits, and there is none",
        "add quantization: nf4, or leave init out",
        "https://arxiv.org/abs/2310.08659",
        "method.init",
        options=("loftq",),
        quantization=("none", "int8", "gptq"),
    ),
    _rule(
        "ZeRO-3 has split the weights before adapters could start from them",
        "use strategy zero2 or fsdp, or leave init out",
        "peft 0.21 pissa_init and olora_init read whole weights",
        "method.init",
        options=("pissa", "olora", "loftq"),
        strategy=("zero3",),
    ),
    _rule(
        "single rows of an embedding that is split can't be trained",
        "use strategy ddp or zero2, or modules_to_save: [embed_tokens]",
        "huggingface/peft#2603",
        "method.trainable_tokens",
        options=("trainable_tokens",),
        strategy=_SHARDING,
    ),
    # -- architecture
    _rule(
        "LLaMA-Adapter knows the attention of Llama, Mistral, Qwen2, Qwen3, Gemma and GLM",
        "use method lora or p_tuning_v2",
        "train/methods/adaption.py",
        "method.type",
        unless={"architecture": ("", *ADAPTION_PROMPT)},
        method=("llama_adapter",),
    ),
    # -- merging
    _rule(
        "a prefix is no change of the model's weights, so it can't be merged into them",
        "write after: [predict] or []; what is trained is used beside its base",
        "by construction",
        "after",
        method=PREFIX_LIKE,
        merge=(True,),
    ),
    _rule(
        "an adaption prompt attends beside the model's attention, so it can't be merged into its weights",
        "write after: [predict] or []; what is trained is used beside its base",
        "by construction",
        "after",
        method=("llama_adapter",),
        merge=(True,),
    ),
    _rule(
        "an adapter can't be merged into GPTQ weights",
        "name the model that the base was made of as merge.original, which the adapter is merged into and "
        "quantized again, or write after: [predict] or []",
        "QwenLM/Qwen#542, hiyouga/LlamaFactory#1545",
        "after",
        unless={"original": (True,)},
        quantization=("gptq",),
        merge=(True,),
    ),
)
