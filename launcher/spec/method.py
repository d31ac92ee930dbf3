"""Section `method` of a job: what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from artifacts.contract import Method as MethodType
from launcher.spec.job_grammar import FilePath
from launcher.spec.section import Conflict, Section
from launcher.spec.words import listed

#: Fields of each method beside those that all have.
FIELDS: dict[str, tuple[str, ...]] = {
    "full": (),
    "partial": ("train", "last_layers", "extra_layers"),
    "lora": (
        "rank",
        "alpha",
        "dropout",
        "target_modules",
        "rslora",
        "dora",
        "init",
        "plus_ratio",
        "modules_to_save",
        "trainable_tokens",
    ),
    "prefix_tuning": ("virtual_tokens", "projection_size"),
    "p_tuning_v2": ("virtual_tokens",),
    "prompt_tuning": ("virtual_tokens",),
    "llama_adapter": ("virtual_tokens", "adapter_layers"),
    "ia3": (),
}

#: What models call their input embedding.
EMBEDDINGS = {"embed_tokens", "word_embeddings", "wte", "embedding"}

Count = Annotated[int, Field(ge=1)]


class Method(Section):
    """What is trained: every weight (`full`), some of the model's own (`partial`), or small new ones beside
    frozen weights (the others). `method: lora` is short for `method: {type: lora}`."""

    type: MethodType = Field("lora", description="What is trained; each field below names its methods.")
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none",
        description="How the frozen base is held: `nf4` (QLoRA, 4 bits with double quantization) or `int8`, "
        "by bitsandbytes; with which methods says docs/matrix.md. A base that is already quantized by GPTQ "
        "is trained as it is.",
    )
    train: Literal["head"] | None = Field(None, description="Train the output head (partial).")
    last_layers: Count | None = Field(None, description="Train so many of the last layers (partial).")
    extra_layers: Count | None = Field(
        None,
        description="Append so many decoder layers and train them alone (partial); they start as identity.",
    )
    rank: int = Field(16, ge=1, le=1024, description="Inner dimension of the adapters (lora).")
    alpha: int | None = Field(
        None, ge=1, description="The adapter is scaled by alpha / rank (lora). Left out: 2 × rank."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of adapter inputs that is dropped (lora).")
    target_modules: FilePath | Annotated[list[FilePath], Field(min_length=1)] = Field(
        "all-linear",
        description="Modules that get an adapter (lora): a list as `[q_proj, v_proj]`, a regular expression "
        "of whole names, or `all-linear`: every linear layer but the output head.",
    )
    rslora: bool = Field(False, description="Scale by alpha / √rank (rank-stabilised LoRA).")
    dora: bool = Field(False, description="Train magnitudes apart from directions (DoRA).")
    init: Literal["default", "pissa", "olora", "loftq"] = Field(
        "default", description="How adapters start (lora): `default` leaves the model as it is."
    )
    plus_ratio: float | None = Field(
        None, ge=1, le=1000, description="LoRA+: learning rate of B over that of A. Left out: the same."
    )
    modules_to_save: list[FilePath] = Field(
        [], description="Modules that are trained whole beside the adapters (lora), as `[lm_head]`."
    )
    trainable_tokens: list[FilePath] = Field(
        [], description="Tokens whose embedding rows alone are trained beside the adapters (lora)."
    )
    virtual_tokens: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Length of the trained prefix or prompt (prefix_tuning, p_tuning_v2, prompt_tuning) or "
        "of the adaption prompt (llama_adapter). Left out: 20, for llama_adapter 10.",
    )
    projection_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Width of the MLP that makes the prefixes (prefix_tuning). Left out: the model's width.",
    )
    adapter_layers: Count | None = Field(
        None, description="Topmost layers with an adaption prompt (llama_adapter). Left out: all but two."
    )

    def conflicts(self) -> Iterator[Conflict]:
        fitting = FIELDS[self.type]
        for field in self.given(*dict.fromkeys(name for names in FIELDS.values() for name in names)):
            if field not in fitting:
                homes = listed([name for name, fields in FIELDS.items() if field in fields])
                why = f"only goes with method {homes}, and the method is {self.type}"
                yield Conflict((field, "type"), why, "remove it")
        parts = ("train", "last_layers", "extra_layers")
        chosen = self.given(*parts)
        if self.type == "partial" and len(chosen) != 1:
            found = " and ".join(chosen) or "none"
            yield Conflict(
                ("type", *parts),
                f"partial trains one of the head, the last layers and extra layers, found {found}",
                "write one of train: head, last_layers: 2, extra_layers: 2",
            )
        if self.dora and self.init != "default":
            yield Conflict(
                ("dora", "init"),
                f"magnitudes (dora) don't go with adapters that start from the base (init: {self.init}): "
                "what was learnt can't be told apart from the base again",
                "leave one of them out",
            )
        if self.type == "lora":
            yield from self._repeated()
            yield from self._trained_twice()

    def _repeated(self) -> Iterator[Conflict]:
        for field in ("target_modules", "modules_to_save", "trainable_tokens"):
            names = getattr(self, field)
            for index, name in enumerate(names if isinstance(names, list) else ()):
                if name in names[:index]:
                    yield Conflict((f"{field}.{index}",), f"{name} is named twice", "remove one")

    def _trained_twice(self) -> Iterator[Conflict]:
        targets = self.target_modules if isinstance(self.target_modules, list) else []
        for name in sorted(set(targets) & set(self.modules_to_save)):
            why = f"{name} is trained whole (modules_to_save), so it can't have an adapter as well"
            yield Conflict(("target_modules", "modules_to_save"), why, f"leave {name} out of one of them")
        whole = sorted(EMBEDDINGS & {*targets, *self.modules_to_save})
        if self.trainable_tokens and whole:
            why = f"rows of the embedding are trained alone, and {whole[0]} is trained as well"
            yield Conflict(("trainable_tokens", "modules_to_save", "target_modules"), why, "keep one of them")
