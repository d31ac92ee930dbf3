"""What every rank does under either engine."""

from __future__ import annotations

import dataclasses
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from artifacts.contract import ModelParams, Plan, StageKind
from artifacts.events import Events, stop_key
from artifacts.manifest import local_folder
from artifacts.store import Store, open_store
from train import strategies
from train.attempts import claim_attempt, read_endings, write_ending
from train.checkpoint import Checkpoints, broadcast, newest
from train.engines.base import Ending, GiveUp, RankJob, decide, ending_of, fruitless_restarts
from train.loop import TrainTask, train_rank
from train.stage import fetch_progress

STOP_CHECK_S = 1.0


def run_rank(job: RankJob, stop_asked: Callable[[], bool], on_step: Callable[[int], None]) -> str:
    """Train in this rank; returns its ending's kind: "done", "drained" or, where the engine restarted the
    group by itself and that is no use, "refused". Whatever it raises has been told to the store.

    `stop_asked`: the engine's own knowledge of a request to stop (a signal, a notice of preemption).
    `on_step`: called after every step with its number, on every rank.
    """
    rank = Rank.join(job)
    attempt = rank.agree_on_attempt()
    if not rank.agree_to_train(attempt):
        return "refused"
    events = Events(rank.store, job.run_id, StageKind.TRAIN) if rank.number == 0 else None
    try:
        ending = train_rank(rank.task(attempt, events, stop_asked, on_step)).ending
    except BaseException as error:
        traceback.print_exc()
        write_ending(rank.store, rank.prefix, attempt, ending_of(error, rank.number))
        raise
    finally:
        if events is not None:
            events.flush()
    write_ending(rank.store, rank.prefix, attempt, Ending(rank=rank.number, kind=ending))
    return ending


@dataclass(frozen=True, kw_only=True)
class Rank:
    """This process among its group."""

    job: RankJob
    plan: Plan
    store: Store
    prefix: str  # `train/<key>`
    number: int
    group: Any  # a gloo group of all ranks, for saving and agreeing; None for a single rank

    @classmethod
    def join(cls, job: RankJob) -> Rank:
        """Join the process group that the environment names, unless the engine did."""
        plan = Plan.from_json(job.plan_json)
        stage = plan.stage(StageKind.TRAIN)
        on_gpu = torch.cuda.is_available()
        strategies.start_process_group(stage.params.world_size, on_gpu=on_gpu, strategy=stage.params.strategy)
        return cls(
            job=job,
            plan=plan,
            store=open_store(plan.store),
            prefix=f"train/{stage.key}",
            number=int(os.environ["RANK"]),
            group=dist.new_group(backend="gloo") if stage.params.world_size > 1 else None,
        )

    def agree_on_attempt(self) -> int:
        if self.job.attempt is not None:
            return self.job.attempt
        return broadcast(claim_attempt(self.store, self.prefix) if self.number == 0 else 0, self.group)

    def agree_to_train(self, attempt: int) -> bool:
        """Whether a group that the engine has started again by itself is to go on; rank 0 decides."""
        if self.job.attempt is not None or attempt == self.job.first_attempt:
            return True
        return broadcast(self._may_restart(attempt) if self.number == 0 else False, self.group)

    def _may_restart(self, attempt: int) -> bool:
        saved = newest(self.store, self.prefix)
        decision = decide(
            read_endings(self.store, self.prefix, attempt - 1),
            world_size=dist.get_world_size() if dist.is_initialized() else 1,
            killed="",
            fruitless=fruitless_restarts(attempt, self.job.first_attempt, saved.attempt if saved else 0),
        )
        if isinstance(decision, GiveUp):
            ending = Ending(rank=0, kind="refused", **dataclasses.asdict(decision))
            write_ending(self.store, self.prefix, attempt, ending)
            return False
        events = Events(self.store, self.job.run_id, StageKind.TRAIN)
        events.say("restarted", reason=decision.reason, attempt=attempt)
        return True

    def task(
        self,
        attempt: int,
        events: Events | None,
        stop_asked: Callable[[], bool],
        on_step: Callable[[int], None],
    ) -> TrainTask:
        """Every rank calls it: rank 0 chooses the checkpoint to continue from."""
        stage = self.plan.stage(StageKind.TRAIN)
        model: ModelParams = self.plan.stage(StageKind.MODEL).params
        work = Path(self.job.work, f"rank-{self.number}")
        checkpoints = Checkpoints(
            self.store,
            self.prefix,
            attempt=attempt,
            keep=stage.params.keep,
            staging=work,
            rank=self.number,
            world_size=stage.params.world_size,
            group=self.group,
            events=events,
        )
        looks, fetched = self.number == 0, fetch_progress(events)
        return TrainTask(
            params=stage.params,
            model=local_folder(self.store, stage.inputs["model"], progress=fetched),
            prepared=local_folder(self.store, stage.inputs["prepare"], progress=fetched),
            store=self.store,
            prefix=self.prefix,
            run_id=self.job.run_id,
            work=work,
            attempt=attempt,
            base_name=model.location if model.source == "hub" and model.location else stage.inputs["model"],
            trust_remote_code=model.trust_remote_code,
            resume_from=checkpoints.resume_folder(),
            checkpointer=checkpoints,
            events=events,
            should_stop=StopWatch(self.store, stop_key(self.job.run_id), stop_asked, looks=looks),
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
