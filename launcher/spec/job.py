"""The job file, declared once: these models are the checks, the JSON Schema and docs/job-reference.md.

Each field says what it does, its unit and what happens when it is left out. Values that a job leaves out
stay `None` (or `auto`) here: `launcher.plan` derives them and says from what.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"
REVISION_PATTERN = r"^[0-9a-f]{40}$"


class Section(BaseModel):
    """Unknown keys are refused; values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _short_form(value: Any) -> Any:
    """`method: lora` is short for `method: {type: lora}`."""
    return {"type": value} if isinstance(value, str) else value


class Twin(Section):
    """A tiny twin: a real architecture with random weights, made on the spot."""

    architecture: Literal["qwen3", "llama"] = Field("qwen3", description="Architecture class.")
    hidden_size: int = Field(128, ge=16, le=1024)
    intermediate_size: int = Field(256, ge=16, le=4096)
    layers: int = Field(2, ge=1, le=16)
    attention_heads: int = Field(4, ge=1, le=32)
    key_value_heads: int = Field(2, ge=1, le=32)
    vocabulary_size: int = Field(1024, ge=300, le=65536, description="Upper bound; a tokenizer is trained on the data.")
    tie_embeddings: bool = Field(True, description="Share the embedding with the output head.")
    seed: int = Field(0, ge=0)


class Model(Section):
    """The base model: exactly one of `hub`, `folder`, `store`, `twin`."""

    hub: str | None = Field(None, description="Repository id, as `Qwen/Qwen3-8B`.")
    revision: str | None = Field(None, pattern=REVISION_PATTERN, description="Full commit of the hub repository; `slipway pin` writes it.")
    provider: Literal["huggingface", "modelscope"] = Field("huggingface", description="Which hub. `HF_ENDPOINT` names a mirror.")
    folder: str | None = Field(None, description="A local folder with config.json, tokenizer and safetensors, used in place.")
    store: str | None = Field(None, description="URI of a model artifact in a store.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Digest of the artifact at `store`; `slipway pin` writes it.")
    twin: Twin | None = Field(None, description="A tiny random model, for trying things out.")
    trust_remote_code: bool = Field(False, description="Run Python files of the model's repository. Needs a pinned revision.")

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [name for name in ("hub", "folder", "store", "twin") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of hub, folder, store, twin (got {', '.join(given) or 'none'})")
        return self


class Data(Section):
    """Local files, each JSON list, JSON lines, CSV or Parquet."""

    train: str | list[str] = Field(description="Training file or files, relative to the job file.")
    eval: str | list[str] | None = Field(None, description="Files for the evaluation loss during training.")
    test: str | list[str] | None = Field(None, description="Files that `predict` answers.")
    format: Literal["auto", "messages", "alpaca"] = Field("auto", description="Record format; detected when `auto`.")
    on_error: Literal["stop", "skip"] = Field("stop", description="A bad record stops the job, or is skipped and counted.")


class Method(Section):
    """What is trained: every weight (`full`) or low-rank adapters (`lora`)."""

    type: Literal["full", "lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024)
    alpha: int | None = Field(None, ge=1, description="Scale of the adapter is alpha / rank. Default: 2 × rank.")
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = Field("all-linear", description="`all-linear` or module names.")


class Training(Section):
    epochs: float | None = Field(None, gt=0, description="Passes over the training data. Default: 3, unless `steps` is given.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps, instead of `epochs`.")
    learning_rate: float | None = Field(None, gt=0, lt=10, description="Peak. Default: 2e-4 for lora, 2e-5 for full.")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    warmup_share: float | None = Field(None, ge=0, lt=1, description="Share of all steps. Default: 0.03, unless `warmup_steps` is given.")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    global_batch_size: int | None = Field(None, ge=1, description="Sequences per optimizer step, over all workers.")
    global_batch_tokens: int | None = Field(None, ge=1, description="The same in tokens, instead of `global_batch_size`.")
    micro_batch_size: int | None = Field(None, ge=1, description="Sequences per worker and forward pass. Derived from memory.")
    max_length: int = Field(2048, ge=8, description="Tokens per sequence.")
    packing: bool = Field(True, description="Fill each sequence with several documents, which never see each other.")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    seed: int = Field(0, ge=0)
    evaluate_every: Literal["epoch"] | Annotated[float, Field(gt=0)] = Field("epoch", description="`epoch`, a number of steps, or below 1 a share of an epoch.")
    save_every: Literal["epoch"] | Annotated[float, Field(gt=0)] = Field("epoch", description="As `evaluate_every`.")
    log_every: int = Field(1, ge=1, description="Steps.")
    keep: int = Field(3, ge=1, description="Newest checkpoints that are kept.")


class Strategy(Section):
    """How weights, gradients and optimizer state are spread over the workers."""

    type: Literal["auto", "ddp", "fsdp", "zero2", "zero3"] = "auto"
    offload: Literal["none", "optimizer", "params"] = Field("none", description="Keep optimizer state (and parameters) in host memory; zero2, zero3 and fsdp.")


class Compute(Section):
    workers: int | None = Field(None, ge=1, le=4096, description="One process each, one GPU each where there are any.")
    accelerator: str | None = Field(None, description="GPU type of the catalog, as `H100-80GB`; the cluster's when left out.")
    memory: str | None = Field(None, pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", description="Host memory per worker, as `64Gi`.")


class Merge(Section):
    max_shard_size: str = Field("5GB", pattern=r"^[0-9]+(\.[0-9]+)?(KB|MB|GB)$", description="Upper bound of one safetensors file.")


class Predict(Section):
    max_new_tokens: int = Field(128, ge=1)
    batch_size: int = Field(16, ge=1)
    limit: int | None = Field(None, ge=1, description="Only the first records of the test file.")
    base: bool = Field(True, description="Also answer with the untuned model, to compare.")


class Job(Section):
    """One fine-tuning job."""

    name: str = Field(pattern=NAME_PATTERN, description="Lower-case letters, digits and dashes; names the run.")
    model: Model
    data: Data
    method: Annotated[Method, BeforeValidator(_short_form)] = Method()
    training: Training = Training()
    strategy: Annotated[Strategy, BeforeValidator(_short_form)] = Strategy()
    compute: Compute = Compute()
    engine: Literal["auto", "torchrun", "ray"] = Field("auto", description="What starts the workers; `auto` is torchrun on one machine, ray on Kubernetes.")
    after: list[Literal["merge", "predict"]] | None = Field(None, description="Stages after training. Default: merge, and predict where there is test data.")
    merge: Merge = Merge()
    predict: Predict = Predict()
