"""`slipway plan` for people, and as JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from artifacts.contract import (
    DataFile,
    DataParams,
    GgufParams,
    ImageParams,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
    TrainParams,
    canonical_json,
)
from artifacts.store import file_uri_path
from launcher.memory import bytes_text
from launcher.names import short_key
from launcher.planning import cluster_part
from launcher.planning.batch import arithmetic, counted_workers
from launcher.spec.data import SPLITS
from launcher.stages.in_place import on_this_machine

WIDTH = 100
_DATA, _MEMORY, _CLUSTER = "data.", "memory.", cluster_part.PREFIX
_ACCUMULATION = "training.gradient_accumulation_steps"  # has its own line


#: Kinds of the stages that are complete; None where the store could not be asked.
Complete = Collection[StageKind] | None


def to_json(plan: Plan, complete: Complete) -> str:
    """The plan as canonical JSON, with its `run_id`, and `complete` in every stage (null: unknown)."""
    value = {**dataclasses.asdict(plan), "run_id": plan.run_id}
    value["stages"] = [
        {**stage, "complete": None if complete is None else stage["kind"] in complete}
        for stage in value["stages"]
    ]
    return canonical_json(value).decode()


def render(plan: Plan, complete: Complete, width: int = WIDTH, *, unknown: str = "") -> str:
    """The plan in plain text, at most `width` columns where its words allow. `unknown` says why the store
    could not be asked which stages are complete."""
    parts = [
        _header(plan, complete, unknown),
        _section("Stages", _stage_rows(plan, complete), width),
    ]
    if plan.has(StageKind.TRAIN):
        parts.append(_section("Each optimizer step", [(_batch(plan),)], width))
    owner = (
        "Memory of this machine, offloaded" if plan.backend == "local" else "Memory of its pods, offloaded"
    )
    for part, title in (("worker", "Memory of one worker"), ("host", owner)):
        if rows := _memory_rows(plan, f"{_MEMORY}{part}."):
            parts.append(_section(title, rows, width))
    for prefix, title in ((_CLUSTER, f"Cluster {plan.cluster}"), (_DATA, "Data")):
        if rows := _facts(plan, prefix):
            parts.insert(1, _section(title, rows, width))
    elsewhere = (_MEMORY, _DATA, _CLUSTER, _ACCUMULATION)
    if rows := _rows(plan, lambda field: not field.startswith(elsewhere)):
        parts.append(_section("Derived, as the job leaves it open", rows, width))
    return "\n\n".join(parts) + "\n"


def _header(plan: Plan, complete: Complete, unknown: str) -> str:
    lines = [
        f"{plan.run_id}  ·  cluster {plan.cluster}  ·  engine {plan.engine}  ·  {_ahead(plan, complete)}",
        f"store {file_uri_path(plan.store) or plan.store}",
    ]
    if complete is None:
        lines.append(f"complete stages: unknown ({unknown or 'store not reachable'})")
    return "\n".join(lines)


def _ahead(plan: Plan, complete: Complete) -> str:
    if complete is None:
        return f"{len(plan.stages)} stages"
    todo = [stage.kind for stage in plan.stages if stage.kind not in complete]
    return f"{len(todo)} of {len(plan.stages)} stages to run" if todo else "every stage is complete"


def _stage_rows(plan: Plan, complete: Complete) -> list[tuple[str, ...]]:
    return [
        (stage.kind.value, short_key(stage.key), _state(stage, complete), _summary(stage, plan.backend))
        for stage in plan.stages
    ]


def _state(stage: StagePlan, complete: Complete) -> str:
    if complete is None:
        return "unknown"
    return "complete, skipped" if stage.kind in complete else "to run"


def _summary(stage: StagePlan, backend: str) -> str:
    """What the stage does, in a line."""
    match stage.params:
        case ImageParams() as params:
            return _image_summary(params)
        case DataParams() as params:
            sizes = [f"{name} {_size(params.splits[name])}" for name in SPLITS if name in params.splits]
            limit = f", the first {params.limit_records} records of each" if params.limit_records else ""
            return f"check and stage {', '.join(sizes)}{limit}"
        case ModelParams() as params:
            return _model_summary(params, backend)
        case PrepareParams() as params:
            packed = "packed into" if params.packing else "one record each, in"
            return f"tokenize, {packed} sequences of {params.max_length:,} tokens"
        case TrainParams() as params:
            length = f"{params.steps:,} steps" if params.steps else f"{params.epochs:g} epochs"
            offload = "" if params.offload == "none" else f" with offload {params.offload}"
            spread = f"{params.strategy}{offload} over {counted_workers(params.world_size)}"
            return f"{params.method}, {length} at {params.learning_rate:g}, {spread}, {params.precision}"
        case MergeParams() as params:
            return f"one model, in files of at most {bytes_text(params.max_shard_size_bytes)}"
        case QuantizeParams() as params:
            groups = f"groups of {params.group_size}" if params.group_size > 0 else "one group a row"
            calibrated = f"calibrated on {params.calibration_sequences} sequences"
            return f"GPTQ, {params.bits} bits in {groups}, {calibrated}"
        case GgufParams() as params:
            return f"{', '.join(f'{params.name}-{kind}.gguf' for kind in params.types)}, and a Modelfile"
        case PublishParams() as params:
            who = "private" if params.private else "public"
            return f"{', '.join(params.products)} to {params.to}, {who} where it is new"
        case PredictParams() as params:
            who = "base and tuned model" if params.base else "tuned model"
            limit = f"{params.limit_records} test records" if params.limit_records else "the test records"
            return f"{who} answer {limit}"
    return ""


def _image_summary(params: ImageParams) -> str:
    if params.given is not None:
        return f"given, nothing to build: {params.given}"
    flash = f", flash-attention for {', '.join(params.architectures)}" if params.flash_attention else ""
    llama = ", llama.cpp" if params.gguf else ""
    return f"build from {params.base} unless {params.repository} has it{flash}{llama}"


def _size(files: Sequence[DataFile]) -> str:
    """A file that lies elsewhere has no known size yet."""
    here = [file.size_bytes for file in files if not file.is_remote]
    elsewhere = [file.path for file in files if file.is_remote]
    return " and ".join([*([bytes_text(sum(here))] if here else []), *elsewhere])


def _model_summary(params: ModelParams, backend: str) -> str:
    if params.twin is not None:
        origin = f"of {params.location}" if params.location else params.twin.architecture
        return f"make a tiny twin {origin}: {params.twin.layers} layers of {params.twin.hidden_size}"
    if params.source == "hub":
        how = ", unless in its cache" if backend == "local" else ", fetched by the cluster"
        return f"{params.location} at {(params.revision or '')[:8]} from {params.hub}{how}"
    if backend != "local" and on_this_machine(params):
        return f"{params.location}, uploaded from here"
    return f"{params.location}, used in place"


def _batch(plan: Plan) -> str:
    params: TrainParams = plan.stage(StageKind.TRAIN).params
    text = arithmetic(params.micro_batch_size, params.gradient_accumulation_steps, params.world_size)
    return f"{text}, at most {params.sequences_per_step * params.max_length:,} tokens"


def _memory_rows(plan: Plan, prefix: str) -> list[tuple[str, ...]]:
    return [
        (d.field.removeprefix(prefix), f"{bytes_text(d.value):>8}", d.reason)
        for d in plan.derived
        if d.field.startswith(prefix)
    ]


def _facts(plan: Plan, prefix: str) -> list[tuple[str, ...]]:
    """What is told without a value of its own."""
    return [(d.field.split(".")[1], d.reason) for d in plan.derived if d.field.startswith(prefix)]


def _rows(plan: Plan, chosen: Callable[[str], bool]) -> list[tuple[str, ...]]:
    return [(d.field, _shown(d.value), d.reason) for d in plan.derived if chosen(d.field)]


def _section(title: str, rows: Iterable[Sequence[str]], width: int) -> str:
    """A title and its rows in aligned columns; the last column wraps."""
    table = [list(row) for row in rows]
    columns = [max(len(cell) for cell in cells) for cells in zip(*(row[:-1] for row in table), strict=True)]
    lines = [title]
    for row in table:
        start = "  " + "".join(f"{cell:<{size}}  " for cell, size in zip(row, columns, strict=False))
        indent = " " * len(start)
        text = textwrap.fill(
            row[-1], max(width, len(start) + 30), initial_indent=start, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        lines.append(text.rstrip())
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as the job file would write it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(str(item) for item in value)}]"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
