"""Sections `training` and `strategy` of a job: how it is trained, and how that is spread over the workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from artifacts.contract import Attention, Optimizer, TrainOn
from artifacts.contract import Strategy as StrategyType
from launcher.spec.job_grammar import MAX_SEED
from launcher.spec.section import Conflict, Section

#: `epoch`, a whole number of steps, or below 1 a share of an epoch.
Interval = Literal["epoch"] | Annotated[float, Field(gt=0)]


class Training(Section):
    """Length, optimizer, batches, precision and how often to evaluate and save."""

    epochs: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Passes over the training data. Left out: 3, unless `steps` is given.",
    )
    steps: int | None = Field(None, ge=1, le=10**9, description="Optimizer steps, instead of `epochs`.")
    learning_rate: float | None = Field(
        None, gt=0, lt=10, description="Peak learning rate of AdamW. Left out: 2e-4 for lora, 2e-5 for full."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate goes on after the warm-up: down to 0, or not."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Optimizer steps over which the learning rate rises from 0 to its peak."
    )
    warmup_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="The same as a share of all steps. Left out: 0.03, unless `warmup_steps` is given.",
    )
    optimizer: Optimizer = Field(
        "adamw",
        description="`adamw`; its state in 8 bits (`adamw_8bit`), paged out of GPU memory when short "
        "(`paged_adamw`), or both; `adafactor` keeps rows and columns of it only.",
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    global_batch_size: int | None = Field(
        None,
        ge=1,
        description="Sequences per optimizer step, over all workers. Left out: about 32, a number that "
        "divides among the workers.",
    )
    global_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="The same in tokens, instead of `global_batch_size`: as many sequences of `max_length` "
        "as go in.",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Sequences per worker and forward pass. Left out: derived from the memory there is.",
    )
    max_length: int = Field(
        2048, ge=8, le=2**20, description="Tokens per sequence; a longer record is cut off at its end."
    )
    train_on: TrainOn = Field(
        "assistant",
        description="What is learnt of a conversation: all words of the assistant, those of its `last` turn, "
        "or `all` that is said.",
    )
    packing: bool = Field(
        True, description="Fill each sequence with several records, which never see each other."
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of the computation. `auto`: bf16 where the hardware has it, else fp32.",
    )
    attention: Attention = Field(
        "auto", description="Attention kernel. `auto`: the best that is installed and fits the model."
    )
    neftune_alpha: float | None = Field(
        None, gt=0, le=1000, description="Scale of NEFTune's noise on embeddings. Left out: no noise."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target spread over all tokens."
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Stop after so many evaluations without a lower loss. Left out: never.",
    )
    best_model: bool = Field(
        False, description="Keep the checkpoint with the lowest evaluation loss, not the last."
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="Recompute activations in the backward pass, to save memory. `auto`: when needed to fit.",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of shuffling, dropout and new weights.")
    evaluate_every: Interval = Field(
        "epoch",
        description="`epoch` (at the end of each), a number of steps, or below 1 a share of an epoch.",
    )
    save_every: Interval = Field("epoch", description="When checkpoints are saved; as `evaluate_every`.")
    log_every: int = Field(1, ge=1, description="Steps between two rows of metrics.")
    keep: int = Field(3, ge=1, le=1000, description="How many checkpoints are kept, newest first.")

    def conflicts(self) -> Iterator[Conflict]:
        for one, other in (
            ("steps", "epochs"),
            ("warmup_steps", "warmup_share"),
            ("global_batch_tokens", "global_batch_size"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                yield Conflict(
                    (one, other), f"{one} and {other} are two ways to say the same", "keep one of them"
                )
        if self.warmup_steps is not None and self.steps is not None and self.warmup_steps > self.steps:
            why = f"the warm-up of {self.warmup_steps:,} steps is longer than the training of {self.steps:,}"
            yield Conflict(("warmup_steps", "steps"), why)
        if self.global_batch_tokens is not None and self.global_batch_tokens < self.max_length:
            why = f"{self.global_batch_tokens:,} tokens are less than one sequence of {self.max_length:,}"
            yield Conflict(("global_batch_tokens", "max_length"), why, "raise it or lower max_length")
        if (self.micro_batch_size or 0) > (self.global_batch_size or self.micro_batch_size or 0):
            why = (
                f"{self.micro_batch_size} sequences are more than global_batch_size {self.global_batch_size}"
            )
            yield Conflict(("micro_batch_size", "global_batch_size"), why)
        for field in ("evaluate_every", "save_every"):
            value = getattr(self, field)
            if isinstance(value, float) and value > 1 and value != int(value):
                yield Conflict((field,), "must be a whole number of steps, a share below 1, or `epoch`")


class Strategy(Section):
    """How weights, gradients and optimizer state are spread over the workers. `strategy: zero3` is short for
    `strategy: {type: zero3}`."""

    type: Literal["auto"] | StrategyType = Field(
        "auto",
        description="`single`: one worker; `ddp`: a whole copy on each; `fsdp` and `zero3` shard weights, "
        "gradients and optimizer state, `zero2` the latter two, `zero1` the last. `auto`: the simplest that "
        "fits in memory.",
    )
    sharding: Literal["full", "hybrid"] = Field(
        "full",
        description="fsdp: over all workers, or `hybrid`: within each node, with a copy on every node.",
    )
    offload: Literal["none", "optimizer", "params"] = Field(
        "none",
        description="What moves to host memory: `optimizer` its state (zero1, zero2, zero3), `params` the "
        "weights too (zero3, fsdp).",
    )

    def conflicts(self) -> Iterator[Conflict]:
        reasons = {
            ("single", "optimizer"): ("single keeps everything on its worker", "use strategy zero2 or zero3"),
            ("single", "params"): ("single keeps everything on its worker", "use strategy zero3 or fsdp"),
            ("ddp", "optimizer"): ("ddp keeps everything on each worker", "use strategy zero2 or zero3"),
            ("ddp", "params"): ("ddp keeps everything on each worker", "use strategy zero3 or fsdp"),
            ("zero1", "params"): (
                "zero1 does not shard weights, so can't offload them",
                "use strategy zero3",
            ),
            ("zero2", "params"): (
                "zero2 does not shard weights, so can't offload them",
                "use strategy zero3",
            ),
            ("fsdp", "optimizer"): (
                "fsdp offloads weights and optimizer state together",
                "write offload: params",
            ),
        }
        if reason := reasons.get((self.type, self.offload)):
            yield Conflict(("offload", "type"), *reason)
        if self.sharding == "hybrid" and self.type not in ("auto", "fsdp"):
            yield Conflict(("sharding", "type"), f"{self.type} knows no hybrid sharding", "use strategy fsdp")
