"""Parameters of the stages `prepare` and `train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from artifacts.contract.words import (
    Attention,
    Method,
    Offload,
    Optimizer,
    Precision,
    Quantization,
    Strategy,
    TrainOn,
)


@dataclass(frozen=True, kw_only=True)
class TemplateParams:
    """The chat template: the tokenizer's own, unless one of `name`, `jinja` and `pieces` is set."""

    name: str | None = None  # of `train.data.named_templates`
    jinja: str | None = None  # the template's source
    pieces: dict[str, str] | None = None  # system_prefix, system_suffix, user_prefix, …, observation_suffix
    default_system: str | None = None
    stop_words: list[str] = field(default_factory=list)  # each becomes one token, and ends an answer
    replace_eos: bool = False  # the first stop word becomes the tokenizer's EOS


@dataclass(frozen=True, kw_only=True)
class PrepareParams:
    """Stage `prepare`: conversations in, packed token sequences out.

    Output: `<split>-NNNNN.arrow` (Arrow IPC file) with the columns `input_ids`, `labels` (list<int32>,
    `IGNORED_LABEL` where nothing is learnt) and `document_lengths` (list<int32>, sums to the row's length:
    position ids restart there), one row a sequence; `statistics.json` (`train.data.statistics`); and
    `tokenizer/`, the tokenizer with the chat template that made them, which is what everything after it uses
    and what is saved with the model. Unpacked: one document a row.
    """

    max_length: int  # tokens
    packing: bool
    seed: int = 0
    template: TemplateParams = field(default_factory=TemplateParams)
    train_on: TrainOn = "assistant"


@dataclass(frozen=True, kw_only=True)
class LoraParams:
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"  # a list of names, "all-linear" or a regular expression
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "pissa", "olora", "loftq"] = "default"
    plus_ratio: float | None = None  # LoRA+: learning rate of B over that of A
    modules_to_save: list[str] = field(default_factory=list)  # trained whole beside the adapters
    trainable_tokens: list[str] = field(default_factory=list)  # whose embedding rows alone are trained


@dataclass(frozen=True, kw_only=True)
class PartialParams:
    """Method `partial`: which of the model's own weights are trained, or the blocks added behind them."""

    head: bool = False
    last_layers: int = 0
    extra_layers: int = 0  # zero-initialised decoder blocks, appended


@dataclass(frozen=True, kw_only=True)
class PromptParams:
    """Methods `prefix_tuning`, `p_tuning_v2`, `prompt_tuning` (virtual tokens) and `llama_adapter`."""

    virtual_tokens: int = 20
    projection_size: int | None = None  # width of the MLP that makes the prefixes; None: trained themselves
    adapter_layers: int | None = None  # llama_adapter: topmost layers that get one; None: all but two


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """Stage `train`. `epochs` or `steps` is set, never both; so with the two batch sizes of the job, which
    the plan has already turned into `micro_batch_size × gradient_accumulation_steps × world_size`."""

    method: Method
    lora: LoraParams | None
    epochs: float | None
    steps: int | None
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup_steps: int | None
    warmup_share: float | None  # of all steps
    weight_decay: float
    max_grad_norm: float
    micro_batch_size: int  # sequences per worker and forward pass
    gradient_accumulation_steps: int
    world_size: int  # ranks = workers
    max_length: int  # tokens per sequence
    precision: Precision
    gradient_checkpointing: bool
    seed: int
    evaluate_every: float | None  # < 1: share of an epoch; >= 1: steps; None: at each epoch's end
    save_every: float | None
    log_every_steps: int
    keep: int  # checkpoints
    strategy: Strategy
    offload: Offload
    sharding: Literal["full", "hybrid"] = "full"  # fsdp: over all ranks, or over those of a node
    partial: PartialParams | None = None
    prompt: PromptParams | None = None
    quantization: Quantization = "none"  # of the frozen base
    optimizer: Optimizer = "adamw"
    attention: Attention = "auto"
    neftune_alpha: float | None = None
    label_smoothing: float = 0.0
    early_stopping: int | None = None  # evaluations without improvement
    best_model: bool = False  # final/ is the checkpoint with the lowest evaluation loss
    accelerator: str | None = None  # name in the catalog, for MFU; None on CPU
    peak_flops_per_second: float | None = None  # dense, at `precision`, of one accelerator
    fresh: str | None = None  # salt of `submit --fresh`: another key on purpose

    @property
    def sequences_per_step(self) -> int:
        """The global batch size."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.world_size
