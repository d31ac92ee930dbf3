"""What every rank does under either engine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
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
from train.attempts import stop_attempt_key, write_ending
from train.checkpoint import Checkpoints, gather
from train.engines.base import Ending, RankJob, ending_of
from train.loop import TrainTask, train_rank
from train.stage import fetch_progress

STOP_CHECK_S = 1.0


def run_rank(
    job: RankJob,
    stop_asked: Callable[[], bool],
    on_step: Callable[[int], None],
    place: Place | None = None,
) -> str:
    """Train in this rank; returns its ending's kind: "done" or "drained". Whatever it raises has been told to
    the store.

    `stop_asked`: whether this rank's machine, or process, is asked to stop; the run's own request lies in the
    store. `on_step`: called after every step with its number, on every rank.
    """
    rank = Rank.join(job)
    events = Events(rank.store, job.run_id, StageKind.TRAIN) if rank.number == 0 else None
    rank.tell_places(place, events)
    try:
        ending = train_rank(rank.task(events, stop_asked, on_step)).ending
    except BaseException as error:
        traceback.print_exc()
        write_ending(rank.store, rank.prefix, job.attempt, ending_of(error, rank.number))
        raise
    finally:
        if events is not None:
            events.flush()
    leaving = place is not None and ending == "drained" and stop_asked()
    write_ending(
        rank.store,
        rank.prefix,
        job.attempt,
        Ending(
            rank=rank.number,
            kind=ending,
            cause=f"{place} was asked to stop" if leaving else "",
            machine=place.machine if leaving and place is not None else "",
        ),
    )
    return ending


@dataclass(frozen=True)
class Place:
    """Where a rank runs, on a cluster."""

    node: str
    pod: str
    machine: str  # the engine's id

    def __str__(self) -> str:
        return f"{self.node} ({self.pod})"


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

    def tell_places(self, place: Place | None, events: Events | None) -> None:
        """Which rank runs where: in each one's output, and once in the run's events."""
        if place is None:
            return
        world_size = self.plan.stage(StageKind.TRAIN).params.world_size
        print(f"rank {self.number} of {world_size} on {place}", flush=True)
        places = gather(place, self.group)
        if events is not None and places is not None:
            text = ", ".join(f"rank {rank} on {where}" for rank, where in enumerate(places))
            nodes = [where.node for where in places]
            events.say("note", text=text, nodes=nodes, attempt=self.job.attempt)

    def task(
        self,
        events: Events | None,
        stop_asked: Callable[[], bool],
        on_step: Callable[[int], None],
    ) -> TrainTask:
        """Every rank calls it: rank 0 chooses the checkpoint to continue from."""
        stage = self.plan.stage(StageKind.TRAIN)
        model: ModelParams = self.plan.stage(StageKind.MODEL).params
        work = Path(self.job.work, f"rank-{self.number}")
        attempt = self.job.attempt
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
            resizable=stage.params.strategy not in strategies.DEEPSPEED_STAGES,
        )
        requests = [stop_key(self.job.run_id), stop_attempt_key(self.prefix, attempt)]
        fetched = fetch_progress(events)
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
            base_revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            resume_from=checkpoints.resume_folder(),
            checkpointer=checkpoints,
            events=events,
            should_stop=StopWatch(self.store, requests if self.number == 0 else [], stop_asked),
            on_step=on_step,
        )


class StopWatch:
    """Whether this rank knows of a request to stop: its own machine's, or one of the objects `requests` in
    the store, for which a thread looks, as no step should wait for the answers. Once asked, always asked."""

    def __init__(self, store: Store, requests: Sequence[str], stop_asked: Callable[[], bool]) -> None:
        self._store, self._requests, self._stop_asked = store, requests, stop_asked
        self._asked = False
        if requests:
            threading.Thread(target=self._look, name="stop-watch", daemon=True).start()

    def __call__(self) -> bool:
        self._asked = self._asked or self._stop_asked()
        return self._asked

    def _look(self) -> None:
        while not self._asked:
            time.sleep(STOP_CHECK_S)
            with contextlib.suppress(Exception):  # a store out of reach: asked again
                self._asked = self._asked or any(map(self._store.exists, self._requests))
