"""Settings that differ, in the job's own words: as written, else as derived, else as the stage took them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.contract import Plan, StageKind
from launcher.compare.runs import Run

#: Not settings: the names of things, where data lies (digests tell whether it is the same), what the plan
#: worked out about memory and files.
_LEFT_OUT = re.compile(r"name|memory\..*|data\.(train|eval|test|pins|dataset_info)(\..*)?|cluster\..*")
#: Which stage's parameters say what a section of the job became.
_STAGES = {
    "training": (StageKind.TRAIN, StageKind.PREPARE),
    "method": (StageKind.TRAIN,),
    "merge": (StageKind.MERGE,),
    "quantize": (StageKind.QUANTIZE,),
    "gguf": (StageKind.GGUF,),
    "predict": (StageKind.PREDICT,),
    "publish": (StageKind.PUBLISH,),
    "template": (StageKind.PREPARE,),
    "data": (StageKind.DATA,),
}
_PARTS = ("lora", "partial", "prompt", "template")  # of a stage's parameters, by the method or template


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value for each run, None where it has none; `reasons` says of derived ones from what."""

    field: str
    values: list[Any]
    reasons: list[str]

    @property
    def differs(self) -> bool:
        return any(value != self.values[0] for value in self.values)

    @property
    def is_derived(self) -> bool:
        """No job says it: in each run it follows from something else."""
        return all(self.reasons)


def settings(runs: Sequence[Run]) -> list[Setting]:
    """All of them, in the order of the jobs."""
    given = [effective(run.facts.plan) for run in runs]
    reasons = [{row.field: row.reason for row in run.facts.plan.derived} for run in runs]
    fields = list(dict.fromkeys(field for values in given for field in values))
    return [
        Setting(
            field=field,
            values=[
                values[field] if field in values else _of_stage(run.facts.plan, field)
                for run, values in zip(runs, given, strict=True)
            ],
            reasons=[known.get(field, "") for known in reasons],
        )
        for field in sorted(fields, key=_order)
    ]


def effective(plan: Plan) -> dict[str, Any]:
    """What the job says, and what was derived where it says nothing, by dotted name."""
    written = {field: value for field, value in flattened(plan.job).items() if value is not None}
    derived = {row.field: row.value for row in plan.derived}
    return {field: value for field, value in (written | derived).items() if not _LEFT_OUT.fullmatch(field)}


def flattened(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested objects as one, with dotted names. Lists stay."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= flattened(item, f"{before}{name}.")
        else:
            found[before + name] = item
    return found


def shown(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_stage(plan: Plan, field: str) -> Any:
    """A default that the job does not tell, as the stage's parameters have it."""
    section, _, name = field.partition(".")
    for kind in _STAGES.get(section, ()):
        if not plan.has(kind):
            continue
        params = plan.stage(kind).params
        for owner in (params, *(getattr(params, part, None) for part in _PARTS)):
            if dataclasses.is_dataclass(owner) and hasattr(owner, name):
                return getattr(owner, name)
    return None


def _order(field: str) -> tuple[int, str]:
    """What people turn first: training and method."""
    sections = ("training", "method", "strategy", "model", "template", "data", "compute")
    section = field.partition(".")[0]
    return (sections.index(section) if section in sections else len(sections), field)
