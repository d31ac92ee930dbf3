"""What can be seen at once that no stage could do with what is given."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from artifacts.contract import DataFile, ModelParams, StageKind
from artifacts.records import GoodRecord, RecordFile
from launcher.alone.given import MERGEABLE, GivenAdapter, GivenModel, GivenRun
from launcher.alone.options import Asked
from launcher.errors import Problem
from launcher.planning import matrix, products
from launcher.planning.hardware import Hardware
from launcher.stages import in_place, sources
from launcher.stages.data import Found, shown
from launcher.stages.sources import Source

#: Of a test file: enough to see whether its records have answers.
_LOOK_AT_RECORDS, _LOOK_AT_BYTES = 100, 1024 * 1024


def model_of(params: ModelParams, environment: Mapping[str, str] = os.environ) -> Source:
    """What is known of a run's base model without reading more than its configuration."""
    folder = in_place.folder_of(params, environment) if params.twin is None else None
    return sources.described(params, folder) if folder else Source(params)


def refusals(asked: Asked, model: Source, *, unquantized: bool) -> Iterator[Problem]:
    """`model`: the whole model, or the base of what was trained; `unquantized`: what a quantized base was
    made of is named."""
    given, what = asked.given, f"slipway {asked.command}"
    if asked.command == "merge" and isinstance(given, GivenModel):
        why = f"{given.name} is a whole model: there is nothing to merge into it"
        yield Problem(where="", what=what, why=why, way_out="name an adapter")
    if asked.command == "predict":
        return
    if why := _unmergeable(asked):
        way_out = "`slipway predict` and `slipway chat` use it beside its base model"
        yield Problem(where="", what=what, why=why, way_out=way_out)
    elif model.quantized_by is not None and not unquantized and not _has_merged(asked):
        yield _quantized(asked, model.quantized_by)
    architecture = model.dimensions.architecture if model.dimensions else ""
    if asked.command == "export" and (why := products.unconvertible(architecture)):
        way_out = "`slipway quantize` makes it small for GPUs"
        yield Problem(where="", what=what, why=why, way_out=way_out)


def of_hardware(asked: Asked, hardware: Hardware) -> Iterator[Problem]:
    """What the place where the stages run is without."""
    if asked.command == "export" and (missing := products.without_llama_cpp(hardware)):
        yield Problem(where="", what="slipway export", why=missing.why, way_out=missing.way_out)


def of_data(asked: Asked, found: Found) -> Iterator[Problem]:
    """Test files without answers to compare with."""
    for file in found.splits.get("test", []) if asked.command == "predict" else []:
        if not _has_answers(file):
            why = "none of its records ends with an assistant's turn after a question"
            way_out = "give each record the answer that is right: scores compare with it"
            yield Problem(where="", what=f"data.test: {shown(Path(file.path))}", why=why, way_out=way_out)


def _unmergeable(asked: Asked) -> str:
    given = asked.given
    if isinstance(given, GivenAdapter) and given.peft_type and given.peft_type not in MERGEABLE:
        return f"an adapter of the type {given.peft_type} is no change of weights, so it can't be merged"
    if isinstance(given, GivenRun) and given.plan.has(StageKind.TRAIN) and not _has_merged(asked):
        cell = matrix.Cell(method=given.plan.stage(StageKind.TRAIN).params.method, merge=True)
        return next((refusal.why for refusal in matrix.refusals(cell) if refusal.field == "after"), "")
    return ""


def _has_merged(asked: Asked) -> bool:
    return isinstance(asked.given, GivenRun) and asked.given.plan.has(StageKind.MERGE)


def _quantized(asked: Asked, method: str) -> Problem:
    what = f"slipway {asked.command}"
    if isinstance(asked.given, GivenModel):
        why, way_out = f"the model is quantized already ({method})", "name the model that it was made of"
    else:
        why = f"the base model is quantized ({method}), and an adapter can't be merged into its weights"
        option = "--set merge.original.folder=FOLDER" if isinstance(asked.given, GivenRun) else "--base"
        way_out = f"name the unquantized one with {option}"
    return Problem(where="", what=what, why=why, way_out=way_out)


def _has_answers(file: DataFile) -> bool:
    """Whether any of the first records is a question with its answer."""
    records = RecordFile(Path(file.path), file.format, file.reading, limit_bytes=_LOOK_AT_BYTES)
    good = (item for item in records if isinstance(item, GoodRecord))
    for item in itertools.islice(good, _LOOK_AT_RECORDS):
        roles = [message["role"] for message in item.messages]
        if "assistant" in roles[1:]:
            return True
    return False
