"""Attempts in a row: how each ends, and what the next one is told to have been the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.segments import read_all
from tests import plan_parts
from train.attempts import check_current, claim_attempt, latest_attempt, write_ending
from train.engines.base import Ending, RankJob
from train.engines.ranks import StopWatch
from train.engines.supervise import supervise
from train.stage import StageContext, StageError

RUN, PREFIX = "bot-1", "train/key"
LEFT = {"cause": "node2 (worker-b) was asked to stop", "machine": "b"}

#: What ranks 0 and 1 say at the end of one attempt, and what the engine saw.
Attempt = tuple[list[Ending], str | None]
DONE: Attempt = ([Ending(rank=0, kind="done"), Ending(rank=1, kind="done")], None)
DRAINED: Attempt = ([Ending(rank=0, kind="drained"), Ending(rank=1, kind="drained")], None)
POD_LEFT: Attempt = ([Ending(rank=0, kind="drained"), Ending(rank=1, kind="drained", **LEFT)], None)
LOST: Attempt = ([Ending(rank=0, kind="disconnected", cause="Connection closed by peer")], "")
NOT_STARTED: Attempt = ([], "the workers did not start (timeout)")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def run(
    store: LocalStore, *attempts: Attempt, stopping: Callable[[], bool] = lambda: False
) -> tuple[str, list[str]]:
    """The ending, and the reasons of restarts."""
    stage = plan_parts.stage(StageKind.TRAIN, plan_parts.train_params(world_size=2))
    plan = plan_parts.plan(store, [stage])
    context = StageContext(plan, RUN, stage, store, Path("work"), Events(store, RUN, "train"))
    following = iter(attempts)

    def launch(job: RankJob) -> str | None:
        endings, seen = next(following)
        for ending in endings:
            write_ending(store, PREFIX, job.attempt, ending)
        return seen

    job = RankJob(plan_json=plan.to_json(), run_id=RUN, work="work")
    ending = supervise(job, context, launch, stopping=stopping)
    assert next(following, None) is None, "ended too early"
    return ending, [row["reason"] for row in read_all(store, f"runs/{RUN}/events")]


def test_done_at_once(store: LocalStore) -> None:
    assert run(store, DONE) == ("done", [])
    assert latest_attempt(store, PREFIX) == 1


def test_a_lost_machine(store: LocalStore) -> None:
    ending, reasons = run(store, LOST, NOT_STARTED, DONE)
    assert ending == "done" and latest_attempt(store, PREFIX) == 3
    assert reasons == [
        "rank 1 died without a word: killed, or its machine was lost",
        "the workers did not start (timeout)",
    ]


def test_one_machine_asked_to_stop_is_no_end_of_the_run(store: LocalStore) -> None:
    assert run(store, POD_LEFT, DONE) == ("done", [LEFT["cause"]])


def test_a_request_to_stop_is(store: LocalStore) -> None:
    assert run(store, DRAINED) == ("drained", [])
    assert run(store, POD_LEFT, stopping=lambda: True) == ("drained", [])


def test_machines_may_leave_more_often_than_ranks_may_die(store: LocalStore) -> None:
    assert run(store, *[POD_LEFT] * 10, DONE)[0] == "done"


def test_restarts_that_bring_nothing_end(store: LocalStore) -> None:
    with pytest.raises(StageError, match="after 3 restarts without a new checkpoint"):
        run(store, *[LOST] * 4)


def test_an_earlier_group_commits_nothing(store: LocalStore) -> None:
    first = claim_attempt(store, PREFIX)
    check_current(store, PREFIX, first)
    second = claim_attempt(store, PREFIX)
    check_current(store, PREFIX, second)
    with pytest.raises(StageError, match="attempt 1 is over"):
        check_current(store, PREFIX, first)


def test_requests_to_stop_in_the_store(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.engines.ranks.STOP_CHECK_S", 0.01)
    own = False
    watch = StopWatch(store, ["runs/a/stop.json", "train/stop.json"], lambda: own)
    time.sleep(0.05)
    assert not watch()
    store.write_bytes("train/stop.json", b"{}")
    deadline = time.monotonic() + 10
    while not watch():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.delete("train/stop.json")
    assert watch(), "once asked, always asked"
    other = StopWatch(store, [], lambda: own)
    assert not other()
    own = True
    assert other()
