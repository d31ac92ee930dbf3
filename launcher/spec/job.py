"""The job file, declared once: these models are the checks, the JSON Schema and docs/job-reference.md.

Each field says what it does, its unit and what happens when it is left out. Values that a job leaves out
stay `None` (or `auto`) here: `launcher.plan` derives them and says from what.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from launcher import remote_data
from launcher.spec.section import Conflict, Section
from launcher.spec.units import MEMORY_PATTERN, SIZE_PATTERN, to_bytes
from launcher.spec.words import listed

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"
REVISION_PATTERN = r"^[0-9a-f]{40}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
HUB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"

#: The patterns in plain words, for error messages ("must be …").
GRAMMARS = {
    NAME_PATTERN: "1 to 30 lower-case letters, digits and dashes, from a letter to a letter or digit",
    REVISION_PATTERN: "a full commit (40 hexadecimal digits), which `slipway pin JOB` writes",
    DIGEST_PATTERN: "a SHA-256 digest (64 hexadecimal digits), which `slipway pin JOB` writes",
    HUB_ID_PATTERN: "a repository id as `Qwen/Qwen3-8B`, not an address",
    MEMORY_PATTERN: "an amount of memory as `64Gi` or `500M`",
    SIZE_PATTERN: "a size as `5GB` or `500MB`",
}

_MAX_SEED = 2**32 - 1  # numpy's limit

FilePath = Annotated[str, Field(min_length=1)]
#: `epoch`, a whole number of steps, or below 1 a share of an epoch.
Interval = Literal["epoch"] | Annotated[float, Field(gt=0)]


After = Literal["merge", "predict"]
Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")

#: Sections that may be written as their `type` alone.
SHORT_FORMS = ("method", "strategy")


def _short_form(value: Any) -> Any:
    """`method: lora` is short for `method: {type: lora}`."""
    return {"type": value} if isinstance(value, str) else value


class Twin(Section):
    """A tiny twin: a real architecture with scaled-down dimensions and random weights, made on the spot. Its
    tokenizer is trained on the training data."""

    architecture: Literal["qwen3", "llama"] = Field("qwen3", description="Architecture class.")
    hidden_size: int = Field(
        128, ge=16, le=1024, description="Width of the residual stream; a multiple of `attention_heads`."
    )
    intermediate_size: int = Field(256, ge=16, le=4096, description="Width inside the MLP.")
    layers: int = Field(2, ge=1, le=16, description="Decoder layers.")
    attention_heads: int = Field(4, ge=1, le=32, description="Query heads; a multiple of `key_value_heads`.")
    key_value_heads: int = Field(2, ge=1, le=32, description="Key and value heads (grouped-query attention).")
    vocabulary_size: int = Field(
        1024, ge=300, le=65536, description="Upper bound of the trained tokenizer, in tokens."
    )
    tie_embeddings: bool = Field(True, description="Share the embedding with the output head.")
    seed: int = Field(0, ge=0, le=_MAX_SEED, description="Seed of the random weights.")

    def conflicts(self) -> Iterator[Conflict]:
        head_size, rest = divmod(self.hidden_size, self.attention_heads)
        if rest:
            yield Conflict(
                ("attention_heads", "hidden_size"),
                f"{self.attention_heads} heads do not divide hidden_size {self.hidden_size}",
                f"use {_divisors(self.hidden_size, 32)} heads",
            )
        elif head_size % 2:
            yield Conflict(
                ("attention_heads", "hidden_size"),
                f"hidden_size {self.hidden_size} / {self.attention_heads} heads = {head_size} is odd, "
                "and rotary position embeddings turn pairs",
            )
        if self.attention_heads % self.key_value_heads:
            yield Conflict(
                ("key_value_heads", "attention_heads"),
                f"{self.key_value_heads} do not divide the {self.attention_heads} attention_heads",
                f"use {_divisors(self.attention_heads, 32)}",
            )


class Model(Section):
    """The base model: exactly one of `hub`, `folder`, `store`, `twin`."""

    hub: str | None = Field(
        None, pattern=HUB_ID_PATTERN, description="Repository id on a model hub, as `Qwen/Qwen3-8B`."
    )
    revision: str | None = Field(
        None,
        pattern=REVISION_PATTERN,
        description="Full commit of the hub repository. Required with `hub`; `slipway pin JOB` writes it.",
    )
    provider: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="Which hub. The environment variable `HF_ENDPOINT` names a mirror."
    )
    folder: FilePath | None = Field(
        None,
        description="A local folder with config.json, tokenizer and safetensors, used in place. A relative "
        "path starts at the job file.",
    )
    store: FilePath | None = Field(
        None,
        description="Address (`s3://bucket/prefix/merged/KEY`, `file://…`) or folder of a model artifact in "
        "a store.",
    )
    sha256: str | None = Field(
        None,
        pattern=DIGEST_PATTERN,
        description="Digest of the artifact at `store`. Required with `store`; `slipway pin JOB` writes it.",
    )
    twin: Twin | None = Field(None, description="A tiny random model, for trying things out (`twin: {}`).")
    trust_remote_code: bool = Field(
        False, description="Run Python files of the model's repository. Needs a pinned model."
    )

    def conflicts(self) -> Iterator[Conflict]:
        sources = ("hub", "folder", "store", "twin")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            yield Conflict(
                tuple(given) or sources,
                f"a model has exactly one source, found {found}",
                f"name one of {', '.join(sources)}",
            )
            return
        for field, source in (("revision", "hub"), ("provider", "hub"), ("sha256", "store")):
            if self.given(field) and given != [source]:
                yield Conflict(
                    (field, given[0]), f"only goes with {source}, and the model is a {given[0]}", "remove it"
                )
        if self.trust_remote_code and self.unpinned():
            yield Conflict(
                ("trust_remote_code",),
                f"needs a pinned model, and {self.unpinned()} is left out",
                "`slipway pin JOB` writes it",
            )
        if self.trust_remote_code and self.twin is not None:
            yield Conflict(("trust_remote_code", "twin"), "a twin has no code of its own", "remove it")

    def unpinned(self) -> str | None:
        """The field that `slipway pin` has yet to write (`revision`, `sha256`); None for a pinned model."""
        if self.hub is not None and self.revision is None:
            return "revision"
        return "sha256" if self.store is not None and self.sha256 is None else None


class Data(Section):
    """Files, each JSON list, JSON lines, CSV or Parquet: local ones (relative paths start at the job file),
    `s3://bucket/key`, or `hub://datasets/ORG/NAME@COMMIT/PATH` of the Hugging Face hub."""

    train: FilePath | Annotated[list[FilePath], Field(min_length=1)] = Field(
        description="Training file or files.", examples=["train.jsonl"]
    )
    eval: FilePath | Annotated[list[FilePath], Field(min_length=1)] | None = Field(
        None, description="File or files for the evaluation loss during training. Left out: no evaluation."
    )
    test: FilePath | Annotated[list[FilePath], Field(min_length=1)] | None = Field(
        None, description="File or files whose questions `predict` answers. Left out: no `predict`."
    )
    format: Literal["auto", "messages", "alpaca"] = Field(
        "auto",
        description="Record format: `messages` (a list of role and content) or `alpaca` (instruction, input, "
        "output). `auto` detects it from the records of each file.",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="A bad record stops the job before training, or is skipped, counted and reported."
    )
    pins: dict[str, Annotated[str, Field(pattern=DIGEST_PATTERN)]] = Field(
        {}, description="SHA-256 of each remote file, by its address. `slipway pin JOB` writes them."
    )

    def files(self, split: Split) -> list[str]:
        """The split's files as a list, empty where the job names none."""
        value: str | list[str] | None = getattr(self, split)
        return [value] if isinstance(value, str) else list(value or [])

    def conflicts(self) -> Iterator[Conflict]:
        for split in SPLITS:
            files = self.files(split)
            for index, file in enumerate(files):
                place = split if isinstance(getattr(self, split), str) else f"{split}.{index}"
                if remote_data.is_remote(file) and not remote_data.is_known(file):
                    yield Conflict(
                        (place,),
                        "no address of a data file",
                        "use s3://bucket/key, hub://datasets/ORG/NAME@<full commit>/PATH, or download it and "
                        "write its path",
                    )
                elif file in files[:index]:
                    yield Conflict((place,), "the same file is named twice", "remove one")


class Method(Section):
    """What is trained: every weight (`full`) or low-rank adapters (`lora`). `method: lora` is short for
    `method: {type: lora}`."""

    type: Literal["full", "lora"] = Field("lora", description="Every weight, or adapters on frozen weights.")
    rank: int = Field(16, ge=1, le=1024, description="Inner dimension of the adapters (lora).")
    alpha: int | None = Field(
        None, ge=1, description="The adapter is scaled by alpha / rank (lora). Left out: 2 × rank."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of adapter inputs that is dropped (lora).")
    target_modules: Literal["all-linear"] | Annotated[list[FilePath], Field(min_length=1)] = Field(
        "all-linear",
        description="Modules that get an adapter (lora): a list as `[q_proj, v_proj]`, or every linear layer "
        "but the output head.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.type == "full":
            for field in self.given("rank", "alpha", "dropout", "target_modules"):
                yield Conflict(
                    (field, "type"), "only goes with method lora, and the method is full", "remove it"
                )


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
    packing: bool = Field(
        True, description="Fill each sequence with several records, which never see each other."
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto",
        description="Number format of the computation. `auto`: bf16 where the hardware has it, else fp32.",
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="Recompute activations in the backward pass, to save memory. `auto`: when needed to fit.",
    )
    seed: int = Field(0, ge=0, le=_MAX_SEED, description="Seed of shuffling, dropout and new weights.")
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

    type: Literal["auto", "ddp", "fsdp", "zero2", "zero3"] = Field(
        "auto",
        description="`ddp`: a whole copy on each worker; `fsdp` and `zero3` shard weights, gradients and "
        "optimizer state, `zero2` the latter two. `auto`: the simplest that fits in memory.",
    )
    offload: Literal["none", "optimizer", "params"] = Field(
        "none",
        description="What moves to host memory: `optimizer` its state (zero2, zero3), `params` the weights "
        "too (zero3, fsdp).",
    )

    def conflicts(self) -> Iterator[Conflict]:
        reasons = {
            ("ddp", "optimizer"): ("ddp keeps everything on each worker", "use strategy zero2 or zero3"),
            ("ddp", "params"): ("ddp keeps everything on each worker", "use strategy zero3 or fsdp"),
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


class Compute(Section):
    """What the workers run on."""

    workers: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Processes that train together, one GPU each where there are any. Left out: as many as "
        "there are GPUs (on a cluster in `nodes.count` nodes, or in one); without a GPU 2, or 1 on a single "
        "core.",
    )
    accelerator: FilePath | None = Field(
        None, description="GPU type of the catalog, as `H100-80GB`. Left out: what the cluster has."
    )
    memory: str | None = Field(
        None,
        pattern=MEMORY_PATTERN,
        description="Host memory that the plan may count on, per worker, as `64Gi`. Left out: all there is.",
    )

    @property
    def memory_bytes(self) -> int | None:
        """Host memory per worker."""
        return None if self.memory is None else to_bytes(self.memory)


class Merge(Section):
    """The merged model's files."""

    max_shard_size: str = Field(
        "5GB",
        pattern=SIZE_PATTERN,
        description="Upper bound of one safetensors file, as `5GB` (powers of 1000).",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.max_shard_size_bytes == 0:
            yield Conflict(("max_shard_size",), "must be above 0")

    @property
    def max_shard_size_bytes(self) -> int:
        return to_bytes(self.max_shard_size)


class Predict(Section):
    """Answers on the test file, with and without the training, and their scores."""

    max_new_tokens: int = Field(128, ge=1, le=2**20, description="Longest answer, in tokens.")
    batch_size: int = Field(16, ge=1, description="Questions answered at a time.")
    limit: int | None = Field(None, ge=1, description="Only so many records of the test file. Left out: all.")
    base: bool = Field(True, description="Also answer with the untuned model, to compare.")


class Job(Section):
    """One fine-tuning job."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="Names the run. Lower-case letters, digits and dashes, at most 30.",
        examples=["support-bot"],
    )
    model: Model = Field(description="The base model.", examples=[{"twin": {}}])
    data: Data = Field(description="What it learns from.", examples=[{"train": "train.jsonl"}])
    method: Annotated[
        Method, BeforeValidator(_short_form, json_schema_input_type=Literal["full", "lora"] | Method)
    ] = Field(Method(), description="What is trained.")
    training: Training = Field(Training(), description="How it is trained.")
    strategy: Annotated[
        Strategy,
        BeforeValidator(
            _short_form, json_schema_input_type=Literal["auto", "ddp", "fsdp", "zero2", "zero3"] | Strategy
        ),
    ] = Field(Strategy(), description="How training is spread over workers.")
    compute: Compute = Field(Compute(), description="What it runs on.")
    engine: Literal["auto", "torchrun", "ray"] = Field(
        "auto", description="What starts the workers. `auto`: torchrun on one machine, ray on Kubernetes."
    )
    after: list[After] | None = Field(
        None,
        description="Stages after training, a list of `merge` and `predict`; `[]`: none. Left out: merge, "
        "and predict where there is test data.",
    )
    merge: Merge = Field(Merge(), description="Settings of the stage `merge`.")
    predict: Predict = Field(Predict(), description="Settings of the stage `predict`.")

    def conflicts(self) -> Iterator[Conflict]:
        after = self.after or []
        for index, stage in enumerate(after):
            if stage in after[:index]:
                yield Conflict((f"after.{index}",), f"{stage} is named twice", "remove one")
        if "predict" in after and self.data.test is None:
            yield Conflict(
                ("after", "data.test"), "predict needs questions to answer", "name a file in data.test"
            )
        if self.training.given("evaluate_every") and self.data.eval is None:
            yield Conflict(
                ("training.evaluate_every", "data.eval"),
                "there is nothing to evaluate on",
                "name a file in data.eval",
            )
        if self.after is None and self.given("predict") and self.data.test is None:
            yield Conflict(
                ("predict", "data.test"), "predict needs questions to answer", "name a file in data.test"
            )

    def with_absolute_paths(self, folder: Path) -> Job:
        """The same job with the paths in `data` and `model` absolute: relative ones start at `folder`, `~` is
        the home folder."""
        splits = {split: _absolute(getattr(self.data, split), folder) for split in self.data.given(*SPLITS)}
        model = {
            name: _absolute(path, folder)
            for name in ("folder", "store")
            if (path := getattr(self.model, name)) is not None and "://" not in path
        }
        return self.model_copy(
            update={"data": self.data.model_copy(update=splits), "model": self.model.model_copy(update=model)}
        )


def _absolute(path: Any, folder: Path) -> Any:
    if isinstance(path, list):
        return [_absolute(item, folder) for item in path]
    if remote_data.is_remote(path):
        return path
    return os.path.abspath(folder / Path(path).expanduser())  # noqa: PTH100 - resolve() would follow symlinks


def _divisors(number: int, limit: int) -> str:
    return listed([str(divisor) for divisor in range(1, limit + 1) if number % divisor == 0])
