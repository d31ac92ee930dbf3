"""The train stage as a process of its own, over a small model, with ranks that die on cue."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.contract import ModelParams, Plan, PrepareParams, StageKind, TrainParams
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from tests import plan_parts
from tests.train import training

ROWS = 16
RUN_ID = "run"
PREFIX = "train/key"


def make_inputs(root: Path) -> LocalStore:
    """A store with a model and a prepared training split, both committed."""
    store = LocalStore(root / "store")
    rows = [[document] for document in training.documents(ROWS)]
    training.write_split(root / "prepared", "train", rows)
    training.write_model(root / "model")
    for prefix in ("prepared", "models"):
        writer = ArtifactWriter(store, f"{prefix}/key")
        writer.add_folder(root / prefix.removesuffix("s"))
        writer.commit()
    return store


def plan(store: LocalStore, params: TrainParams, engine: str = "torchrun") -> Plan:
    prepare = PrepareParams(max_length=params.max_length, packing=False)
    stages = [
        plan_parts.stage(StageKind.MODEL, ModelParams(source="folder")),
        plan_parts.stage(StageKind.PREPARE, prepare),
        plan_parts.stage(StageKind.TRAIN, params, model="models/key", prepare="prepared/key"),
    ]
    return plan_parts.plan(store, stages, engine=engine)


@dataclasses.dataclass(frozen=True)
class Death:
    """SIGKILL during the attempt, once the step is done: a rank, or (None) the launcher and with it all."""

    step: int
    rank: int | None = None
    attempt: int = 1


def start(store: LocalStore, params: TrainParams, *deaths: Death, step_s: float = 0) -> Any:
    """The stage as a process (forked from the server that has the libraries). Steps take `step_s` longer."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.preloaded"])
    work = store.root.parent / "work"
    process = context.Process(target=_stage, args=(plan(store, params).to_json(), str(work), deaths, step_s))
    process.start()
    return process


def run(store: LocalStore, params: TrainParams, *deaths: Death) -> int:
    """Its exit code; minus the signal where it was killed."""
    process = start(store, params, *deaths)
    process.join(120)
    assert process.exitcode is not None, "the stage hangs"
    return process.exitcode


def wait_for(condition: Callable[[], Any], process: Any, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert process.is_alive(), "the stage ended too early"
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def _stage(plan_json: bytes, work: str, deaths: tuple[Death, ...], step_s: float) -> None:
    from artifacts.events import Events
    from train.__main__ import run_stage
    from train.engines import ranks
    from train.stage import StageContext

    made = ranks.Rank.task

    def mortal_task(*arguments: Any) -> Any:
        task = made(*arguments)

        def on_step(step: int) -> None:
            time.sleep(step_s)
            _die(deaths, step, task.rank, task.attempt)

        return dataclasses.replace(task, on_step=on_step)

    ranks.Rank.task = mortal_task
    parsed = Plan.from_json(plan_json)
    store = LocalStore(Path(parsed.store.removeprefix("file://")))
    context = StageContext(
        plan=parsed,
        run_id=RUN_ID,
        stage=parsed.stage(StageKind.TRAIN),
        store=store,
        work=Path(work),
        events=Events(store, RUN_ID, "train"),
    )
    os._exit(run_stage(context))


def _die(deaths: tuple[Death, ...], step: int, rank: int, attempt: int) -> None:
    for death in deaths:
        if (death.step, death.attempt) == (step, attempt):
            if death.rank == rank:
                os.kill(os.getpid(), signal.SIGKILL)
            elif death.rank is None and rank == 0:
                os.kill(os.getppid(), signal.SIGKILL)
                signal.pause()
