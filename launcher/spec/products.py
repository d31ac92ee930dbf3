"""Sections of a job about what is made of the trained model: merge, quantize, gguf, predict, publish."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from artifacts.contract import GgufType, Product
from launcher.spec.base_model import ModelSource
from launcher.spec.job_grammar import HUB_ID_PATTERN, LICENSE_PATTERN, MAX_SEED
from launcher.spec.section import Conflict, Section
from launcher.spec.units import SIZE_PATTERN, to_bytes

#: The stages after training, in the order in which they run.
After = Literal["merge", "quantize", "gguf", "predict", "publish"]
AFTER: tuple[After, ...] = get_args(After)

_S3_TARGET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+")


def listed_stages(stages: Sequence[After], added: str) -> str:
    """`after` with one more, in order, as a job would write it; with the default where it is empty."""
    return ", ".join(stage for stage in AFTER if stage in {*(stages or ["merge"]), added})


class Merge(Section):
    """What an adapter is merged onto, and the merged model's files."""

    original: ModelSource | None = Field(
        None,
        description="The unquantized model that a GPTQ base was made of: an adapter can't be merged into "
        "weights of few bits, so it is merged into these, and the result is quantized again.",
    )
    max_shard_size: str = Field(
        "5GB",
        pattern=SIZE_PATTERN,
        description="Upper bound of one safetensors file, as `5GB` (powers of 1000).",
    )
    max_drift: float = Field(
        0.05,
        gt=0,
        description="How far the merged model's logits may be from those of base and adapter (root mean "
        "square, as a share of their standard deviation); above it the stage fails.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.max_shard_size_bytes == 0:
            yield Conflict(("max_shard_size",), "must be above 0")

    @property
    def max_shard_size_bytes(self) -> int:
        return to_bytes(self.max_shard_size)

    def with_absolute_paths(self, folder: Path) -> Merge:
        """Relative paths start at `folder`."""
        if self.original is None:
            return self
        return self.model_copy(update={"original": self.original.with_absolute_paths(folder)})


class Quantize(Section):
    """GPTQ: the whole model in few bits, calibrated on the run's own training data."""

    bits: Literal[4, 8] = Field(4, description="Bits of a weight.")
    group_size: Literal[-1, 32, 64, 128, 256] = Field(
        128, description="Input channels that share a scale; -1: all of a row."
    )
    desc_act: bool = Field(
        False, description="Quantize columns in the order of falling activation: closer, but slower to serve."
    )
    damping: float = Field(
        0.05, gt=0, lt=1, description="Share of the Hessian's mean diagonal that is added to it."
    )
    calibration_sequences: int = Field(
        256, ge=1, le=100_000, description="Prepared training sequences that calibrate."
    )
    calibration_length: int = Field(2048, ge=8, le=2**20, description="Tokens of each, at most.")
    max_perplexity_increase: float = Field(
        0.25,
        gt=0,
        description="How much the perplexity on data.eval may rise, as a share; above it the stage fails.",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the choice of sequences.")


class Gguf(Section):
    """Files for llama.cpp and Ollama."""

    types: Annotated[list[GgufType], Field(min_length=1)] = Field(
        ["q4_k_m"], description="llama.cpp's types: `f16`, `q8_0`, `q4_k_m`; a file each."
    )

    def conflicts(self) -> Iterator[Conflict]:
        for index, name in enumerate(self.types):
            if name in self.types[:index]:
                yield Conflict((f"types.{index}",), f"{name} is named twice", "remove one")


class Predict(Section):
    """Answers on the test file, with and without the training, and their scores."""

    max_new_tokens: int = Field(128, ge=1, le=2**20, description="Longest answer, in tokens.")
    batch_size: int = Field(16, ge=1, description="Questions answered at a time.")
    limit: int | None = Field(None, ge=1, description="Only so many records of the test file. Left out: all.")
    base: bool = Field(True, description="Also answer with the untuned model, to compare.")


class Publish(Section):
    """Where what was made is published. `publish: hub://org/name` is short for
    `publish: {to: hub://org/name}`."""

    to: str | None = Field(
        None,
        description="`hub://org/name`, a repository of the model hub (its token comes from the variable "
        "HF_TOKEN), or `s3://bucket/prefix`.",
        examples=["hub://org/support-bot"],
    )
    products: Annotated[list[Product], Field(min_length=1)] | None = Field(
        None,
        description="What is published: `model`, `adapter`, `quantized`, `gguf`. Left out: the merged model, "
        "else the adapter, and whatever of the others the job makes.",
    )
    private: bool = Field(True, description="Whether a hub repository that is made for it is private.")
    license: str | None = Field(
        None,
        pattern=LICENSE_PATTERN,
        description="The model card's licence, by the hub's identifier, as `apache-2.0`. Left out: the base "
        "model's, where its card names one.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        kind, _, rest = (self.to or "").partition("://")
        sound = kind == "hub" and re.fullmatch(HUB_ID_PATTERN, rest) and "/" in rest
        if self.to is not None and not (sound or _S3_TARGET.fullmatch(self.to)):
            yield Conflict(("to",), "is neither hub://org/name nor s3://bucket/prefix")
        for index, name in enumerate(self.products or []):
            if name in (self.products or [])[:index]:
                yield Conflict((f"products.{index}",), f"{name} is named twice", "remove one")
