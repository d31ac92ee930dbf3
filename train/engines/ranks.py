"""What every rank does under either engine."""

from __future__ import annotations

import dataclasses
import os
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from artifacts.contract import EXIT_FAILED, ModelParams, Plan, StageKind, TrainParams
from artifacts.events import Events, stop_key
from artifacts.manifest import local_folder
from artifacts.store import Store, open_store
from train import strategies
from train.attempts import claim_attempt, read_endings, write_ending
from train.checkpoint import Checkpoints, broadcast, newest
from train.engines.base import Ending, GiveUp, RankJob, decide, fruitless_restarts
from train.loop import TrainTask, train_rank
from train.stage import StageError

STOP_CHECK_S = 1.0

# gloo and NCCL say so, each in its own words, when another rank is gone.
_DISCONNECTED = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|connectFullMesh|remote process exited|"
    r"recvValue failed|socket (timeout|closed)|NCCL error|timed out",
    re.IGNORECASE,
)


def run_rank(job: RankJob, stop_asked: Callable[[], bool], on_step: Callable[[int], None]) -> str:
    """Train in this rank; returns its ending's kind: "done", "drained" or, where the engine restarted the
    group by itself and that is no use, "refused". Whatever it raises has been told to the store.

    `stop_asked`: the engine's own knowledge of a request to stop (a signal, a notice of preemption).
    `on_step`: called after every step with its number, on every rank.
    """
    plan = Plan.from_json(job.plan_json)
    params: TrainParams = plan.stage(StageKind.TRAIN).params
    store, prefix = open_store(plan.store), f"train/{plan.stage(StageKind.TRAIN).key}"
    rank = int(os.environ["RANK"])
    strategies.start_process_group(
        params.world_size, on_gpu=torch.cuda.is_available(), strategy=params.strategy
    )
    group = dist.new_group(backend="gloo") if params.world_size > 1 else None
    attempt = job.attempt or broadcast(claim_attempt(store, prefix) if rank == 0 else 0, group)
    if job.attempt is None and attempt > job.first_attempt:
        go_on = _may_restart(job, store, prefix, attempt, params.world_size) if rank == 0 else False
        if not broadcast(go_on, group):
            return "refused"
    try:
        ending = train_rank(_task(job, plan, store, attempt, rank, group, stop_asked, on_step)).ending
    except BaseException as error:
        traceback.print_exc()
        write_ending(store, prefix, attempt, ending_of(error, rank))
        raise
    write_ending(store, prefix, attempt, Ending(rank=rank, kind=ending))
    return ending


def _may_restart(job: RankJob, store: Store, prefix: str, attempt: int, world_size: int) -> bool:
    """In rank 0 of a group that the engine has started again: whether it is to train."""
    endings = read_endings(store, prefix, attempt - 1)
    saved = newest(store, prefix)
    decision = decide(
        endings,
        world_size=world_size,
        killed="",
        fruitless=fruitless_restarts(attempt, job.first_attempt, saved.attempt if saved else 0),
    )
    if isinstance(decision, GiveUp):
        ending = Ending(rank=0, kind="refused", **dataclasses.asdict(decision))
        write_ending(store, prefix, attempt, ending)
        return False
    events = Events(store, job.run_id, StageKind.TRAIN)
    events.say("restarted", reason=decision.reason, attempt=attempt)
    return True


def _task(
    job: RankJob,
    plan: Plan,
    store: Store,
    attempt: int,
    rank: int,
    group: Any,
    stop_asked: Callable[[], bool],
    on_step: Callable[[int], None],
) -> TrainTask:
    stage = plan.stage(StageKind.TRAIN)
    model: ModelParams = plan.stage(StageKind.MODEL).params
    work = Path(job.work, f"rank-{rank}")
    events = Events(store, job.run_id, StageKind.TRAIN) if rank == 0 else None
    checkpoints = Checkpoints(
        store,
        f"train/{stage.key}",
        attempt=attempt,
        keep=stage.params.keep,
        staging=work,
        rank=rank,
        world_size=stage.params.world_size,
        group=group,
        events=events,
    )
    return TrainTask(
        params=stage.params,
        model=local_folder(store, stage.inputs["model"]),
        prepared=local_folder(store, stage.inputs["prepare"]),
        store=store,
        prefix=f"train/{stage.key}",
        run_id=job.run_id,
        work=work,
        attempt=attempt,
        base_name=model.location if model.source == "hub" and model.location else stage.inputs["model"],
        trust_remote_code=model.trust_remote_code,
        resume_from=checkpoints.resume_folder(),
        checkpointer=checkpoints,
        events=events,
        should_stop=StopWatch(store, stop_key(job.run_id), stop_asked, looks=rank == 0),
        on_step=on_step,
    )


class StopWatch:
    """Whether this rank knows of a request to stop: the engine's, or (where it `looks`) the object in the
    store, which is asked for at most every `STOP_CHECK_S`. Once asked, always asked."""

    def __init__(
        self,
        store: Store,
        key: str,
        stop_asked: Callable[[], bool],
        *,
        looks: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._key, self._stop_asked, self._looks, self._clock = (
            store,
            key,
            stop_asked,
            looks,
            clock,
        )
        self._next_look = clock()
        self._asked = False

    def __call__(self) -> bool:
        self._asked = self._asked or self._stop_asked()
        if self._looks and not self._asked and self._clock() >= self._next_look:
            self._next_look = self._clock() + STOP_CHECK_S
            self._asked = self._store.exists(self._key)
        return self._asked


# Mistakes of a program or its input: they come again. Machines and networks fail with others.
_REPEATED = (ValueError, TypeError, LookupError, AttributeError, ImportError, AssertionError)


def ending_of(error: BaseException, rank: int) -> Ending:
    """How a rank ended that `error` ended."""
    if isinstance(error, StageError):
        return Ending(
            rank=rank, kind="refused", cause=error.cause, advice=error.advice, exit_code=error.exit_code
        )
    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, _REPEATED):
        return Ending(rank=rank, kind="refused", cause=cause, exit_code=EXIT_FAILED)
    gone = isinstance(error, dist.DistError | ConnectionError) or (
        isinstance(error, RuntimeError) and _DISCONNECTED.search(str(error)) is not None
    )
    return Ending(rank=rank, kind="disconnected" if gone else "failed", cause=cause)
