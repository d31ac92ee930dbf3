"""Section `model` of a job: where the base model comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from launcher.spec.data import absolute
from launcher.spec.job_grammar import DIGEST_PATTERN, HUB_ID_PATTERN, MAX_SEED, REVISION_PATTERN, FilePath
from launcher.spec.section import Conflict, Section
from launcher.spec.words import listed


class Twin(Section):
    """A tiny twin: a real architecture with scaled-down dimensions and random weights, made on the spot. Its
    tokenizer is trained on the training data."""

    architecture: Literal["qwen3", "qwen2", "llama", "mistral", "gemma", "glm", "bloom"] = Field(
        "qwen3", description="Architecture class."
    )
    hidden_size: int = Field(
        128, ge=16, le=1024, description="Width of the residual stream; a multiple of `attention_heads`."
    )
    intermediate_size: int = Field(
        256, ge=16, le=4096, description="Width inside the MLP; bloom's is 4 × `hidden_size`."
    )
    layers: int = Field(2, ge=1, le=16, description="Decoder layers.")
    attention_heads: int = Field(4, ge=1, le=32, description="Query heads; a multiple of `key_value_heads`.")
    key_value_heads: int = Field(
        2,
        ge=1,
        le=32,
        description="Key and value heads (grouped-query attention); bloom has none of its own.",
    )
    vocabulary_size: int = Field(
        1024, ge=300, le=65536, description="Upper bound of the trained tokenizer, in tokens."
    )
    tie_embeddings: bool = Field(True, description="Share the embedding with the output head.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the random weights.")

    def conflicts(self) -> Iterator[Conflict]:
        head_size, rest = divmod(self.hidden_size, self.attention_heads)
        if rest:
            yield Conflict(
                ("attention_heads", "hidden_size"),
                f"{self.attention_heads} heads do not divide hidden_size {self.hidden_size}",
                f"use {_divisors(self.hidden_size, 32)} heads",
            )
        # GLM turns half of a head.
        elif (pairs := 4 if self.architecture == "glm" else 2) and head_size % pairs:
            yield Conflict(
                ("attention_heads", "hidden_size"),
                f"hidden_size {self.hidden_size} / {self.attention_heads} heads = {head_size} is no multiple "
                f"of {pairs}, and rotary position embeddings turn pairs",
            )
        if self.architecture == "bloom":
            for field in self.given("intermediate_size", "key_value_heads"):
                yield Conflict((field, "architecture"), "Bloom has no such size of its own", "remove it")
        elif self.attention_heads % self.key_value_heads:
            yield Conflict(
                ("key_value_heads", "attention_heads"),
                f"{self.key_value_heads} do not divide the {self.attention_heads} attention_heads",
                f"use {_divisors(self.attention_heads, 32)}",
            )


class ModelSource(Section):
    """A model that is there: exactly one of `hub`, `folder`, `store`."""

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
    trust_remote_code: bool = Field(
        False, description="Run Python files of the model's repository. Needs a pinned model."
    )

    #: The fields of which a model has exactly one.
    SOURCES: ClassVar[tuple[str, ...]] = ("hub", "folder", "store")

    def conflicts(self) -> Iterator[Conflict]:
        given = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            yield Conflict(
                tuple(given) or self.SOURCES,
                f"a model has exactly one source, found {found}",
                f"name one of {', '.join(self.SOURCES)}",
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

    def unpinned(self) -> str | None:
        """The field that `slipway pin` has yet to write (`revision`, `sha256`); None for a pinned model."""
        if self.hub is not None and self.revision is None:
            return "revision"
        return "sha256" if self.store is not None and self.sha256 is None else None

    def with_absolute_paths(self, folder: Path) -> Self:
        """Relative paths start at `folder`, `~` is the home folder."""
        paths = {
            name: absolute(path, folder)
            for name in ("folder", "store")
            if (path := getattr(self, name)) is not None and "://" not in path
        }
        return self.model_copy(update=paths)


class Model(ModelSource):
    """The base model: exactly one of `hub`, `folder`, `store`, `twin`."""

    twin: Twin | None = Field(None, description="A tiny random model, for trying things out (`twin: {}`).")

    SOURCES: ClassVar[tuple[str, ...]] = ("hub", "folder", "store", "twin")

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.trust_remote_code and self.twin is not None:
            yield Conflict(("trust_remote_code", "twin"), "a twin has no code of its own", "remove it")


def _divisors(number: int, limit: int) -> str:
    return listed([str(divisor) for divisor in range(1, limit + 1) if number % divisor == 0])
