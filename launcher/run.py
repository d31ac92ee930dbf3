"""READ FIRST: `drive` carries a run to its end. The whole flow is on this page.

A plan is a graph of stages; each leaves one artifact, which exists once its commit marker does. To drive is
to walk the graph: skip what is complete, start what is ready, observe, decide, retry, until all is complete;
then write the report. Nothing is remembered outside the store and the locks of running processes: killed at
any point and started again, `drive` converges to the same objects, and two processes never make one artifact.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from artifacts.contract import Plan, StageKind, StagePlan
from artifacts.events import stop_key
from artifacts.store import ObjectMissingError, Store
from launcher import checkpoints
from launcher.backends.base import Backend
from launcher.errors import Problem, RunFailed, UserError
from launcher.progress.journal import Journal
from launcher.stages.done import is_done
from launcher.status import Attempt, Done, Fail, Observation, Retry, Wait, decide

#: From a stop request to the first signal: time to save at the next step boundary. Only training saves.
STOP_GRACE_S = 120.0

#: Between two looks: short after a change, longer while nothing happens.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


def drive(
    plan: Plan,
    run_id: str,
    store: Store,
    backend: Backend,
    *,
    write_report: Callable[[], object],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Literal["finished", "drained"]:
    """Carry the run to its end, from wherever an earlier drive left it.

    `drained`: it was asked to stop (`artifacts.events.stop_key`), and has. Raises RunFailed, or UserError
    where the input is at fault; both name the stage, the cause and the advice.
    """
    store.delete(stop_key(run_id))  # a request that was meant for an earlier drive
    walk = _Walk(plan, run_id, store, backend, clock)
    try:
        return _carry(walk, sleep)
    finally:
        _report(walk.journal, write_report)


def _carry(walk: _Walk, sleep: Callable[[float], None]) -> Literal["finished", "drained"]:
    pause_s = _SHORTEST_PAUSE_S
    while walk.todo:
        walk.heed_stop_request()
        walk.running, walk.changed = 0, False
        for stage in walk.ready():
            walk.visit(stage)
        if walk.stopping and walk.todo and not walk.running:
            walk.journal.drained()
            return "drained"
        if not walk.changed:
            sleep(pause_s)
        pause_s = _SHORTEST_PAUSE_S if walk.changed else min(pause_s * 1.2, _LONGEST_PAUSE_S)
    walk.journal.finished()
    return "finished"


@dataclass
class _Visits:
    """What one drive remembers of a stage."""

    step: int  # of its newest checkpoint; -1 without one
    start_at: float | None = None  # clock time of the next start
    begun: bool = False  # this drive has started it
    told_waiting: bool = False
    note: str = ""  # the newest of its observations
    attempts: list[Attempt] = field(default_factory=list)  # those that ended badly


class _Walk:
    """One drive's way through the graph."""

    def __init__(
        self, plan: Plan, run_id: str, store: Store, backend: Backend, clock: Callable[[], float]
    ) -> None:
        self.run_id, self.store, self.backend, self.clock = run_id, store, backend, clock
        self.journal = Journal(store, run_id)
        self.todo = [stage for stage in plan.stages if not is_done(stage, store)]
        self.visits = {stage.key: _Visits(self._newest_step(stage)) for stage in self.todo}
        self.stopping, self.running, self.changed = False, 0, False
        self.journal.started(skipped=[stage for stage in plan.stages if stage not in self.todo])

    def ready(self) -> list[StagePlan]:
        """Stages whose inputs are all complete."""
        missing = {stage.output for stage in self.todo}
        return [stage for stage in self.todo if missing.isdisjoint(stage.inputs.values())]

    def visit(self, stage: StagePlan) -> None:
        """Start the stage if it is time to; else look at it and act on the decision."""
        visits = self.visits[stage.key]
        if visits.start_at is not None and not self.stopping:
            if self.clock() >= visits.start_at:
                visits.start_at, visits.begun, self.changed = None, True, True
                self.backend.start(stage)
            return
        observation = self.backend.observe(stage)
        match decide(observation, visits.attempts):
            case Done():
                self._done(stage, visits)
            case Wait():
                self._wait(stage, visits, observation)
            case Retry() as retry if not self.stopping:
                self._schedule(stage, visits, retry)
            case Fail() as failure if not self.stopping or failure.user_error:
                self._fail(stage, failure, observation)

    def heed_stop_request(self) -> None:
        if self.stopping or (grace_s := _stop_requested(self.store, self.run_id)) is None:
            return
        self.stopping = True
        for stage in self.todo:
            self.backend.stop(stage, grace_s if stage.kind == StageKind.TRAIN else 0.0)

    def _done(self, stage: StagePlan, visits: _Visits) -> None:
        self.todo.remove(stage)
        self.changed = True
        if not visits.begun:
            self.journal.made_elsewhere(stage)

    def _wait(self, stage: StagePlan, visits: _Visits, observation: Observation) -> None:
        self.running += observation.phase == "running"
        if observation.phase == "elsewhere" and not visits.told_waiting:
            visits.told_waiting = True
            self.journal.waiting(stage)
        if observation.note != visits.note:
            visits.note = observation.note
            self.journal.note(observation.note, stage)

    def _schedule(self, stage: StagePlan, visits: _Visits, retry: Retry) -> None:
        visits.start_at, visits.note, self.changed = self.clock() + retry.delay_s, "", True
        if retry.failure:
            step = self._newest_step(stage)
            visits.attempts.append(Attempt(failure=retry.failure, progressed=step > visits.step))
            visits.step = step
            self.journal.restarting(stage, retry)

    def _fail(self, stage: StagePlan, failure: Fail, observation: Observation) -> None:
        self.journal.failed(stage, failure, observation.evidence)
        for other in self.todo:
            self.backend.stop(other, grace_s=0.0)
        if failure.user_error:
            raise UserError(
                Problem(where="", what=f"stage {stage.kind}", why=failure.reason, way_out=failure.advice)
            )
        raise RunFailed(str(stage.kind), failure.reason, failure.advice, observation.evidence)

    def _newest_step(self, stage: StagePlan) -> int:
        """How far a training has come. Other stages are done or not."""
        if stage.kind != StageKind.TRAIN:
            return -1
        return checkpoints.newest_step(self.store, f"{stage.kind.folder}/{stage.key}")


def _stop_requested(store: Store, run_id: str) -> float | None:
    """The grace period in seconds where the run is asked to stop, else None."""
    try:
        request = json.loads(store.read_bytes(stop_key(run_id)))
    except ObjectMissingError:
        return None
    return float(request.get("grace_s", STOP_GRACE_S))


def _report(journal: Journal, write_report: Callable[[], object]) -> None:
    """Of every ending. What was made is made, whatever becomes of its report."""
    try:
        write_report()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        journal.note(f"the report could not be written ({what}): `slipway report RUN` tries again")
