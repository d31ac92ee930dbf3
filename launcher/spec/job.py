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
from launcher.spec.data import Data
from launcher.spec.job_grammar import NAME_PATTERN, FilePath
from launcher.spec.method import Method
from launcher.spec.products import After, Gguf, Merge, Predict, Publish, Quantize, listed_stages
from launcher.spec.section import Conflict, Section
from launcher.spec.template import Template, TemplateName
from launcher.spec.training import Strategy, Training
from launcher.spec.units import MEMORY_PATTERN, to_bytes

#: Sections that may be written as the value of one field.
SHORT_FORMS = {"method": "type", "strategy": "type", "publish": "to"}


def _template_name(value: Any) -> Any:
    """`template: chatml` is short for `template: {name: chatml}`."""
    return {"name": value} if isinstance(value, str) else value


def _short_form(value: Any) -> Any:
    """`method: lora` is short for `method: {type: lora}`."""
    return {"type": value} if isinstance(value, str) else value


def _publish_to(value: Any) -> Any:
    """`publish: hub://org/name` is short for `publish: {to: hub://org/name}`."""
    return {"to": value} if isinstance(value, str) else value


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
        description="Stages after training, a list of `merge`, `quantize`, `gguf`, `predict` and `publish`; "
        "`[]`: none. Left out: merge, and predict where there is test data.",
    )
    merge: Merge = Field(Merge(), description="Settings of the stage `merge`.")
    quantize: Quantize = Field(Quantize(), description="Settings of the stage `quantize`.")
    gguf: Gguf = Field(Gguf(), description="Settings of the stage `gguf`.")
    predict: Predict = Field(Predict(), description="Settings of the stage `predict`.")
    publish: Annotated[Publish, BeforeValidator(_publish_to, json_schema_input_type=str | Publish)] = Field(
        Publish(), description="Where the stage `publish` puts what was made."
    )

    def conflicts(self) -> Iterator[Conflict]:
        yield from self._after_conflicts()
        for field in self.training.given("evaluate_every", "early_stopping", "best_model"):
            if getattr(self.training, field) and not self.data.has_eval:
                yield Conflict(
                    (f"training.{field}", "data.eval"),
                    "there is nothing to evaluate on",
                    "name a file in data.eval, or set data.eval_fraction",
                )

    def _after_conflicts(self) -> Iterator[Conflict]:
        after = self.after or []
        for index, stage in enumerate(after):
            if stage in after[:index]:
                yield Conflict((f"after.{index}",), f"{stage} is named twice", "remove one")
        asks = "after" if "predict" in after else "predict"
        if self.data.test is None and ("predict" in after or (self.after is None and self.given("predict"))):
            yield Conflict(
                (asks, "data.test"), "predict needs questions to answer", "name a file in data.test"
            )
        for section in self.given("quantize", "gguf", "publish"):
            requantized = section == "quantize" and self.merge.original is not None
            if section not in after and not requantized:
                why = f"the stage {section} is not in `after`, so these settings have no effect"
                yield Conflict((section, "after"), why, f"write after: [{listed_stages(after, section)}]")
        if "publish" in after and self.publish.to is None:
            yield Conflict(("publish.to", "after"), "publish where to?", "write publish: hub://org/name")

    def with_absolute_paths(self, folder: Path) -> Job:
        """The same job with the paths in `data`, `model` and `merge` absolute: relative ones start at
        `folder`, `~` is the home folder."""
        sections = self.given("data", "model", "merge")
        return self.model_copy(
            update={name: getattr(self, name).with_absolute_paths(folder) for name in sections}
        )
