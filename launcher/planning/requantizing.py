"""A GPTQ base whose adapter is merged into the model that it was made of: what that needs, and how the result
is quantized again."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, get_args

from launcher.dimensions import Dimensions
from launcher.planning.findings import Findings
from launcher.planning.resolve import Resolved
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.spec.products import Quantize
from launcher.stages.sources import Source

#: Settings of section quantize, by their names in a GPTQ model's `quantization_config`, which are the same.
_SETTINGS = ("bits", "group_size", "desc_act")
#: Dimensions that quantizing leaves as they are.
_SAME = ("architecture", "layers", "hidden_size", "vocabulary_size")


def of(job: Loaded[Job], base: Source) -> tuple[Loaded[Job], dict[str, Any]]:
    """`job` with the settings of its quantized base where it leaves them out, so that what comes out is
    quantized as the base was; and these settings."""
    if job.value.merge.original is None or base.quantized_by != "gptq":
        return job, {}
    wanted, stored = job.value.quantize, base.quantization or {}
    settings = {
        name: stored[name]
        for name in _SETTINGS
        if not wanted.given(name) and name in stored and _is_possible(name, stored[name])
    }
    filled = job.value.model_copy(update={"quantize": wanted.model_copy(update=settings)})
    return dataclasses.replace(job, value=filled if settings else job.value), settings


def _is_possible(name: str, value: Any) -> bool:
    allowed = get_args(Quantize.model_fields[name].annotation)
    return value in allowed if allowed else isinstance(value, bool)


def quantized_by(job: Job, base: Source) -> str | None:
    """`quant_method` of the base. One of which nothing is on this machine is GPTQ's if the job says what it
    was made of."""
    unknown = base.params is not None and base.dimensions is None and base.quantization is None
    return "gptq" if unknown and job.merge.original is not None else base.quantized_by


def check(
    found: Findings, base: Source, original: Source, settings: dict[str, Any], resolved: Resolved | None
) -> None:
    """Refuse an original that is of no use, or is not the base's; tell where the `settings` of `of` are
    from."""
    section = found.job.merge.original
    if section is None or resolved is None:
        return
    source = section.given("hub", "folder", "store")[0]
    refuse = functools.partial(found.refuse, f"merge.original.{source}", getattr(section, source))
    if resolved.train.quantization != "gptq":
        why = "the model is not quantized by GPTQ, so its adapter is merged into the model itself"
        refuse(why, "remove merge.original")
    elif "merge" not in resolved.after:
        refuse("the stage merge is not in `after`, so this has no effect", "add merge to `after`")
    elif original.quantized_by is not None:
        refuse(f"it is quantized itself, by {original.quantized_by}", "name the model in 16 or 32 bits")
    elif other := _difference(base.dimensions, original.dimensions):
        refuse(f"the model was not made of it: {other}", "name the one that it was made of")
    for name, value in settings.items() if "quantize" in resolved.after else ():
        found.say(f"quantize.{name}", value, "as the model was quantized (config.json)")


def _difference(base: Dimensions | None, original: Dimensions | None) -> str:
    """The first dimension in which they differ, in words; empty where there is none, or nothing is known."""
    if base is None or original is None:
        return ""
    pairs = ((name, getattr(original, name), getattr(base, name)) for name in _SAME)
    return next(
        (
            f"{name.replace('_', ' ')} {its}, the model's {models}"
            for name, its, models in pairs
            if its != models
        ),
        "",
    )
