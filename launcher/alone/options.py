"""The options of a command as sections of a job, checked as a job file's are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from artifacts.contract import StageKind
from launcher.alone.given import Given, GivenModel, GivenRun
from launcher.errors import Problem, UserError
from launcher.remote_data import is_remote
from launcher.spec import explain
from launcher.spec.data import Split
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.spec.overrides import apply, parse_override
from launcher.spec.words import listed, shown_path
from launcher.spec.yaml import Document

Command = Literal["merge", "quantize", "export", "predict"]
#: The stage that a command asks for. Its section of a job has the same name.
STAGES: dict[Command, StageKind] = {
    "merge": StageKind.MERGE,
    "quantize": StageKind.QUANTIZE,
    "export": StageKind.GGUF,
    "predict": StageKind.PREDICT,
}
_NAME_CHARACTERS = 30
_NO_DATA = "-"  # a job has training data, a command need not


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One call of a command. `sections`: what its options say, by section of a job; `data`: files by split;
    `overrides`: fields as `--set` takes them."""

    command: Command
    given: Given
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[Split, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()

    @property
    def stage(self) -> StageKind:
        return STAGES[self.command]

    @property
    def product_name(self) -> str:
        """Of the model or run, in the letters of a run's name."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.given.name.lower()).strip("-")
        return re.sub(rf"^({'|'.join(STAGES)})-(?=.)", "", plain)

    @property
    def run_name(self) -> str:
        return f"{self.command}-{self.product_name}"[:_NAME_CHARACTERS].strip("-")


class Options(Loaded[Job]):
    """A job that stands in no file: its fields have no place to point to."""

    def where(self, field: str = "") -> str:
        return ""


def job_of(asked: Asked) -> Options:
    """The job with what the command has a use for: of a run its own settings, else the defaults; then the
    options. Raises UserError with every mistake."""
    plain = _plain(asked)
    parsed = [parse_override(text) for text in asked.overrides]
    known = _known(asked)
    problems = [
        Problem(
            where=f"--set {shown_path(override.path)}",
            what=f"{override.path[0]}",
            why=f"`slipway {asked.command}` has no use for it",
            way_out=f"it takes {listed(known)}",
        )
        for override in parsed
        if override.path[0] not in known
    ]
    overridden, conflicts = apply(plain, parsed)
    value, findings = explain.check(Job, overridden)
    problems += conflicts
    problems += [
        Problem(where="", what=shown_path(finding.path), why=finding.why, way_out=finding.way_out)
        for finding in findings
    ]
    if problems or value is None:
        raise UserError(problems)
    value = value.model_copy(update={"merge": value.merge.with_absolute_paths(Path.cwd())})
    folder = next((Path(path).parent for path in asked.data.values()), Path.cwd())
    return Options(value, folder / "options", Document(overridden))


def _known(asked: Asked) -> list[str]:
    sections = ["model", "template", "merge", str(asked.stage)]
    return list(dict.fromkeys([*sections, *(["data"] if asked.data else [])]))


def _plain(asked: Asked) -> dict[str, Any]:
    given, section = asked.given, str(asked.stage)
    plain: dict[str, Any] = {}
    if isinstance(given, GivenRun):
        kept = ("model", "data", "template", "merge", section)
        plain = {name: given.plan.job[name] for name in kept if name in given.plan.job}
        precision = given.plan.job.get("training", {}).get("precision")
        plain |= {"training": {"precision": precision}} if precision else {}
    else:
        source = given.source if isinstance(given, GivenModel) else given.base
        plain["model"] = source.model_dump(exclude_none=True, exclude_unset=True)
        plain |= {"predict": {"base": False}} if section == "predict" else {}
    if asked.data:
        files = {split: absolute(path) for split, path in asked.data.items()}
        plain["data"] = {"train": next(iter(files.values())), **files}
    plain.setdefault("data", {"train": _NO_DATA})
    for name, values in asked.sections.items():
        plain[name] = {**plain.get(name, {}), **values}
    answers = section == "predict" and "test" in plain["data"]
    return plain | {"name": asked.run_name, "after": [section] if section != "predict" or answers else []}


def told(asked: Asked, job: Job) -> dict[str, Any]:
    """The job as the plan shows it: what decides, without what is there only to fill a job."""
    names = ["name", "model", "template", "merge", str(asked.stage), "after"]
    values = job.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    shown = {name: values[name] for name in names if name in values}
    if asked.data or values["data"].get("train") != _NO_DATA:
        shown["data"] = values["data"]
    return shown | {"command": asked.command}


def absolute(path: str) -> str:
    """A data file as a plan names it. A path on the command line is the user's own word: where a symlink
    leads is where the file is. Raises UserError for an address, which a job would pin."""
    if is_remote(path):
        why, way_out = "is not on this machine", "download it, or name it in a job, which pins it"
        raise UserError(Problem(where="", what=f"--data {path}", why=why, way_out=way_out))
    place = Path(path).expanduser()
    return str(place.resolve()) if place.exists() else os.path.abspath(place)  # noqa: PTH100 - a pattern
