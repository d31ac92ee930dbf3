"""The record of runs in the store: `runs/<run-id>/` holds plan.json, references.json (the artifacts that the
run refers to, so that `gc` keeps them), events/ and report.html. A run's state is derived from its events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from artifacts.contract import Plan, StageKind, StagePlan, canonical_json
from artifacts.events import events_prefix
from artifacts.manifest import file_source, is_complete, read_marker
from artifacts.segments import read_all
from artifacts.store import ObjectMissingError, Store
from launcher.errors import Problem, UserError
from launcher.names import is_run_id
from launcher.progress.board import Board, RunState
from launcher.progress.journal import RUN
from launcher.reporting.products import Figure, figures

RUNS = "runs"
REPORT = "report.html"
_READERS = 16  # of a remote store at a time
#: Kinds of stages beside the merge whose artifact is of use to others.
_PRODUCTS = (StageKind.QUANTIZE, StageKind.GGUF, StageKind.PREDICT, StageKind.PUBLISH)
_ANSWERS_SHOWN = 3  # at the end of a run


def plan_key(run_id: str) -> str:
    return f"{RUNS}/{run_id}/plan.json"


def references_key(run_id: str) -> str:
    return f"{RUNS}/{run_id}/references.json"


def report_key(run_id: str) -> str:
    return f"{RUNS}/{run_id}/{REPORT}"


def create(store: Store, plan: Plan, run_id: str) -> None:
    """Record the run, unless it is there. The plan comes last: a run exists once its plan does."""
    if not store.exists(plan_key(run_id)):
        store.write_bytes(references_key(run_id), canonical_json(references(plan)))
        store.write_bytes(plan_key(run_id), plan.to_json(), if_absent=True)


def references(plan: Plan) -> list[str]:
    """Prefixes `<kind>/<key>` of the artifacts that the plan's run makes or reads."""
    prefixes = {stage.output for stage in plan.stages}
    prefixes |= {prefix for stage in plan.stages for prefix in stage.inputs.values()}
    return sorted({"/".join(prefix.split("/")[:2]) for prefix in prefixes})


def load_plan(store: Store, run_id: str) -> Plan:
    """Raises UserError where there is no such run, or its plan was written by another version."""
    try:
        return Plan.from_json(store.read_bytes(plan_key(run_id)))
    except ObjectMissingError as error:
        raise _no_run(store, run_id) from error
    except (ValueError, TypeError) as error:
        raise UserError(
            Problem(
                where="",
                what=f"run {run_id}",
                why=f"its plan.json can't be read ({error})",
                way_out="submit its job again",
            )
        ) from error


def load_board(store: Store, run_id: str, *, alive: bool) -> Board:
    plan = load_plan(store, run_id)
    return Board.of(
        [stage.kind for stage in plan.stages], read_all(store, events_prefix(run_id)), alive=alive
    )


# Finding runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of `slipway runs`."""

    run_id: str
    name: str
    state: RunState
    created_s: float | None  # Unix time
    started_s: float | None  # the newest drive
    ended_s: float | None
    driven_s: float  # time in drives that have ended
    stages_complete: int
    stages: int
    user: str  # who asked for the newest drive; empty where that is not known


def run_ids(store: Store) -> list[str]:
    return sorted(
        {info.key.split("/")[1] for info in store.list(RUNS) if info.key == plan_key(info.key.split("/")[1])}
    )


def list_runs(store: Store, alive: Iterable[str] = ()) -> list[RunSummary]:
    """All runs, newest first. `alive`: those that somebody drives now. Reads only the pilots' events."""
    return _summaries(store, run_ids(store), set(alive))


def find(store: Store, text: str | None) -> str:
    """The run that `text` means: its id, a beginning of it that no other has, or the newest run of a job of
    that name; without text the newest run of all. Raises UserError."""
    if text and is_run_id(text) and store.exists(plan_key(text)):
        return text
    there = run_ids(store)
    if text is None:
        if not there:
            why = f"{store.uri} is empty"
            raise UserError(Problem(where="", what="no run yet", why=why, way_out="slipway submit JOB"))
        return _newest(store, there)
    if named := [run_id for run_id in there if run_id.rpartition("-")[0] == text]:
        return _newest(store, named)
    begun = [run_id for run_id in there if text and run_id.startswith(text)]
    if len(begun) > 1:
        raise UserError(Problem(where="", what=f"run {text}", why=f"could be {' or '.join(begun)}"))
    if not begun:
        raise _no_run(store, text)
    return begun[0]


def remove(store: Store, run_id: str) -> None:
    """Forget a run; its artifacts stay until `gc`. The plan goes first: without it the run is not there."""
    store.delete(plan_key(run_id))
    store.delete_many([info.key for info in store.list(f"{RUNS}/{run_id}")])


def _newest(store: Store, runs: Sequence[str]) -> str:
    return runs[0] if len(runs) == 1 else _summaries(store, runs, set())[0].run_id


def _summaries(store: Store, runs: Sequence[str], driven: set[str]) -> list[RunSummary]:
    """Newest first. Each takes a dozen small reads: of a remote store several are made at a time."""

    def summary(run_id: str) -> RunSummary:
        return _summary(store, run_id, run_id in driven)

    if store.local_path("") is not None:
        found = [summary(run_id) for run_id in runs]
    else:
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(summary, runs))
    return sorted(found, key=lambda run: -(run.created_s or 0.0))


def _summary(store: Store, run_id: str, alive: bool) -> RunSummary:
    try:
        stages: list[StagePlan] = load_plan(store, run_id).stages
    except UserError:
        stages = []
    board = Board.of([stage.kind for stage in stages], _run_rows(store, run_id), alive=alive)
    return RunSummary(
        run_id=run_id,
        name=run_id.rpartition("-")[0],
        state=board.state,
        created_s=board.created_s,
        started_s=board.started_s,
        ended_s=board.ended_s,
        driven_s=board.driven_s,
        stages_complete=sum(is_complete(store, stage.output) for stage in stages),
        stages=len(stages),
        user=board.user,
    )


def _run_rows(store: Store, run_id: str) -> Iterator[dict[str, Any]]:
    """The pilots' rows: `artifacts.events.Events` names its segments after the stage."""
    prefix = events_prefix(run_id)
    for info in store.list(prefix):
        if info.key.startswith(f"{prefix}/{RUN}-"):
            yield from map(json.loads, store.read_bytes(info.key).splitlines())


def _no_run(store: Store, text: str) -> UserError:
    way_out = "`slipway runs` lists them" if run_ids(store) else "there is none yet: slipway submit JOB"
    return UserError(
        Problem(where="", what=f"run {text or '(empty name)'}", why=f"not in {store.uri}", way_out=way_out)
    )


# What a complete run leaves ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Results:
    """Where a run's products are, and how the model did. Empty where a run has no such stage."""

    model: str | None  # folder of the merged model, else of what training left
    products: dict[str, str]  # places of the others by the kind of their stage
    report: str | None
    scores: dict[str, dict[str, float]]  # "base", "tuned": score -> 0 to 100
    answers: list[dict[str, str]]  # some of the test file: prompt, reference, base, tuned
    figures: list[Figure] = field(default_factory=list)  # what is known of the products


def results(store: Store, run_id: str, plan: Plan) -> Results:
    """What to show at the end of a run; reads only the head of the predictions."""
    markers = {stage.kind: read_marker(store, stage.output) for stage in plan.stages}
    manifests = {kind.value: marker for kind, marker in markers.items() if marker is not None}
    made = {stage.kind: stage for stage in plan.stages if stage.kind in manifests}
    product = made.get(StageKind.MERGE) or made.get(StageKind.TRAIN)
    predict = made.get(StageKind.PREDICT)
    return Results(
        model=place(store, product.output) if product else None,
        products={kind: _shown_place(store, made[kind]) for kind in _PRODUCTS if kind in made},
        report=place(store, report_key(run_id)) if store.exists(report_key(run_id)) else None,
        scores=_scores(store, predict.output) if predict else {},
        answers=_answers(store, predict.output) if predict else [],
        figures=figures(plan, manifests),
    )


def place(store: Store, key: str) -> str:
    """Where an artifact's files (or an object) lie: a path on this machine, else a URI."""
    manifest = read_marker(store, key)
    source, before = (store, key) if manifest is None else file_source(store, key, manifest)
    name = before.rstrip("/")
    path = source.local_path(name)
    return str(path) if path is not None else f"{source.uri}/{name}".rstrip("/")


def _shown_place(store: Store, stage: StagePlan) -> str:
    """Where a product lies: of a publication its address."""
    manifest = read_marker(store, stage.output)
    address = manifest.facts.get("address") if manifest else None
    return str(address) if address else place(store, stage.output)


def _scores(store: Store, prefix: str) -> dict[str, dict[str, float]]:
    scores = json.loads(store.read_bytes(f"{prefix}/scores.json"))
    return {who: scores[who] for who in ("base", "tuned") if scores.get(who)}


def _answers(store: Store, prefix: str) -> list[dict[str, str]]:
    rows = []
    with store.open_read(f"{prefix}/predictions.jsonl") as lines:
        for _ in range(_ANSWERS_SHOWN):
            if line := lines.readline():
                row = json.loads(line)
                prompt = " ".join(
                    message["content"] for message in row["prompt"] if message["role"] == "user"
                )
                rows.append(
                    {"prompt": prompt, **{key: row.get(key) or "" for key in ("reference", "base", "tuned")}}
                )
    return rows
