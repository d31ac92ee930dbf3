"""The job file, declared once: these models are the checks, the JSON Schema and docs/job-reference.md.

Each field says what it does, its unit and what happens when it is left out. Values that a job leaves out
stay `None` (or `auto`) here: `launcher.plan` derives them and says from what.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from artifacts.contract import Method as MethodType
from artifacts.contract import Strategy as StrategyType
from launcher.spec.base_model import Model
from launcher.spec.data import Data, absolute
from launcher.spec.job_grammar import NAME_PATTERN, FilePath
from launcher.spec.method import Method
from launcher.spec.section import Conflict, Section
from launcher.spec.template import Template, TemplateName
from launcher.spec.training import Strategy, Training
from launcher.spec.units import MEMORY_PATTERN, SIZE_PATTERN, to_bytes

After = Literal["merge", "predict"]

#: Sections that may be written as their `type` alone.
SHORT_FORMS = ("method", "strategy")


def _template_name(value: Any) -> Any:
    """`template: chatml` is short for `template: {name: chatml}`."""
    return {"name": value} if isinstance(value, str) else value


def _short_form(value: Any) -> Any:
    """`method: lora` is short for `method: {type: lora}`."""
    return {"type": value} if isinstance(value, str) else value


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
    template: Annotated[
        Template, BeforeValidator(_template_name, json_schema_input_type=TemplateName | Template)
    ] = Field(Template(), description="How conversations are written as text.")
    method: Annotated[Method, BeforeValidator(_short_form, json_schema_input_type=MethodType | Method)] = (
        Field(Method(), description="What is trained.")
    )
    training: Training = Field(Training(), description="How it is trained.")
    strategy: Annotated[
        Strategy,
        BeforeValidator(_short_form, json_schema_input_type=Literal["auto"] | StrategyType | Strategy),
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
        for field in self.training.given("evaluate_every", "early_stopping", "best_model"):
            if getattr(self.training, field) and not self.data.has_eval:
                yield Conflict(
                    (f"training.{field}", "data.eval"),
                    "there is nothing to evaluate on",
                    "name a file in data.eval, or set data.eval_fraction",
                )
        if self.after is None and self.given("predict") and self.data.test is None:
            yield Conflict(
                ("predict", "data.test"), "predict needs questions to answer", "name a file in data.test"
            )

    def with_absolute_paths(self, folder: Path) -> Job:
        """The same job with the paths in `data` and `model` absolute: relative ones start at `folder`, `~` is
        the home folder."""
        model = {
            name: absolute(path, folder)
            for name in ("folder", "store")
            if (path := getattr(self.model, name)) is not None and "://" not in path
        }
        return self.model_copy(
            update={
                "data": self.data.with_absolute_paths(folder),
                "model": self.model.model_copy(update=model),
            }
        )
