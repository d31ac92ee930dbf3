"""`launcher.run.drive` with real processes: what is skipped, retried, and what a kill at any point leaves."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.contract import Plan, StagePlan
from artifacts.events import events_prefix, stop_key
from artifacts.local import LocalStore
from artifacts.manifest import is_complete, verify
from artifacts.segments import read_all
from launcher import record
from launcher.errors import RunFailed, UserError
from launcher.pilots.local import LocalPilots
from launcher.run import drive
from launcher.status import Observation
from tests.launcher.driving import Yard, make_plan, wait_for, yard

__all__ = ["yard"]

ALL = ["model", "prepare", "train", "merge", "predict"]  # what the host starts, in this order


def carry(yard: Yard, plan: Plan, dying: DyingStore | None = None) -> str:
    with yard.backend(plan) as backend:
        if dying is not None:
            start = backend.start
            backend.start = lambda stage: dying.effect(lambda: start(stage))  # type: ignore[method-assign]
        return drive(plan, plan.run_id, dying or yard.store, backend, write_report=lambda: None)


def assert_whole(yard: Yard, plan: Plan) -> None:
    for stage in plan.stages:
        assert verify(yard.store, stage.output) == []


def test_carries_every_stage_to_its_end(yard: Yard) -> None:
    plan = make_plan(yard.store)
    assert carry(yard, plan) == "finished"
    assert_whole(yard, plan)
    assert yard.ledger() == ALL
    record.create(yard.store, plan, plan.run_id)
    board = record.load_board(yard.store, plan.run_id, alive=False)
    assert board.state == "complete"
    assert {stage.state for stage in board.stages.values()} == {"complete"}
    assert board.stages["train"].loss == pytest.approx(1 / 6)


def test_a_complete_run_starts_nothing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(yard.store)
    carry(yard, plan)
    monkeypatch.setattr("launcher.backends.local.HOST_COMMAND", ("false",))
    started = time.monotonic()
    assert carry(yard, plan) == "finished"
    assert yard.ledger() == ALL
    assert time.monotonic() - started < 2
    assert len(list((yard.work / "runs").glob("*/logs/host.log"))) == 1


def test_another_run_re_does_only_what_is_its_own(yard: Yard) -> None:
    carry(yard, make_plan(yard.store, kinds="data model prepare train"))
    carry(yard, make_plan(yard.store))
    assert yard.ledger() == ALL


def test_a_killed_stage_is_started_again_and_goes_on_from_its_checkpoint(yard: Yard) -> None:
    yard.behave(train=["kill:9", "kill:15"])
    plan = make_plan(yard.store)
    assert carry(yard, plan) == "finished"
    assert yard.ledger().count("train") == 3
    rows = [row for row in read_all(yard.store, events_prefix(plan.run_id)) if row["kind"] == "restarted"]
    assert [row["reason"] for row in rows] == [
        "something outside killed it (SIGKILL)",
        "something outside killed it (SIGTERM)",
    ]


def test_a_failure_names_stage_cause_advice_and_evidence(yard: Yard) -> None:
    yard.behave(train=["fail:loss is not a number at step 3|lower training.learning_rate"])
    plan = make_plan(yard.store)
    with pytest.raises(RunFailed) as caught:
        carry(yard, plan)
    error = caught.value
    assert (error.stage, error.cause) == ("train", "loss is not a number at step 3")
    assert error.advice == "lower training.learning_rate"
    assert "train: attempt 1" in Path(error.evidence).read_text()
    assert yard.ledger() == ["model", "prepare", "train"]


def test_what_is_worth_knowing_meanwhile_is_told_when_it_changes(yard: Yard) -> None:
    plan = make_plan(yard.store, kinds="data model prepare")
    notes = iter(["no node is free", "no node is free", "a node was lost", ""])
    with yard.backend(plan) as backend:
        observe = backend.observe

        def noting(stage: StagePlan) -> Observation:
            observation = observe(stage)
            told = stage.kind == "prepare" and observation.phase == "running"
            return dataclasses.replace(observation, note=next(notes, "")) if told else observation

        backend.observe = noting  # type: ignore[method-assign]
        yard.behave(prepare=["slow:2"])
        drive(plan, plan.run_id, yard.store, backend, write_report=lambda: None)
    rows = [row for row in read_all(yard.store, events_prefix(plan.run_id)) if row["kind"] == "note"]
    assert [row["text"] for row in rows if row["stage"] == "prepare"] == [
        "no node is free",
        "a node was lost",
        "",
    ]


def test_a_users_mistake_found_late_is_still_a_user_error(yard: Yard) -> None:
    yard.behave(prepare=["user:no record has a supervised token"])
    with pytest.raises(UserError, match="no record has a supervised token"):
        carry(yard, make_plan(yard.store))


@pytest.mark.parametrize("behaviour", ["silent", "late"])
def test_exit_code_and_marker_that_disagree_are_asked_once_more(yard: Yard, behaviour: str) -> None:
    yard.behave(merge=[behaviour])
    plan = make_plan(yard.store)
    assert carry(yard, plan) == "finished"
    assert_whole(yard, plan)


def test_a_lasting_disagreement_is_named(yard: Yard) -> None:
    yard.behave(merge=["silent"] * 5)
    with pytest.raises(RunFailed, match=r"exit code 0, but the commit marker is missing \(tried 2 times\)"):
        carry(yard, make_plan(yard.store))


def test_a_host_that_does_not_start_is_done_without(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage then runs as `python -m train STAGE`: here a package of that name with the fake stages."""
    package = yard.folder / "train"
    package.mkdir()
    (package / "__init__.py").touch()
    fake = Path(__file__).with_name("fake_host.py")
    (package / "__main__.py").write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('fake_host', {str(fake)!r})\n"
        "fake = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(fake)\n"
        "sys.exit(fake.run_child({'argv': sys.argv[1:], 'log': '/dev/stdout'}))\n"
    )
    monkeypatch.setattr("launcher.backends.processes.PROJECT_ROOT", yard.folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("FAKE_HOST_FAILS", "1")
    plan = make_plan(yard.store)
    assert carry(yard, plan) == "finished"
    assert yard.ledger() == ALL


def test_a_report_that_fails_does_not_fail_the_run(yard: Yard) -> None:
    plan = make_plan(yard.store, kinds="data")

    def broken() -> None:
        raise OSError("no space for it")

    with yard.backend(plan) as backend:
        assert drive(plan, plan.run_id, yard.store, backend, write_report=broken) == "finished"
    notes = [row for row in read_all(yard.store, events_prefix(plan.run_id)) if row["kind"] == "note"]
    assert "no space for it" in notes[0]["text"]


def test_a_stop_request_drains_training(yard: Yard) -> None:
    yard.behave(train=["slow:3"])
    plan = make_plan(yard.store)
    child = fork(lambda: carry(yard, plan))
    wait_for(lambda: any("checkpoint-1-1/COMPLETE" in info.key for info in yard.store.list("train")), 20)
    yard.store.write_bytes(stop_key(plan.run_id), b'{"grace_s": 30}')
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    record.create(yard.store, plan, plan.run_id)
    board = record.load_board(yard.store, plan.run_id, alive=False)
    assert (board.state, board.stages["train"].state) == ("drained", "drained")
    assert carry(yard, plan) == "finished"  # the old request does not stop the next drive
    assert_whole(yard, plan)


def test_a_stage_that_does_not_heed_a_stop_request_is_ended(yard: Yard) -> None:
    yard.behave(merge=["slow:60"])
    plan = make_plan(yard.store)
    child = fork(lambda: carry(yard, plan))
    wait_for(lambda: "merge" in yard.ledger(), 20)
    yard.store.write_bytes(stop_key(plan.run_id), b"{}")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not is_complete(yard.store, plan.stage("merge").output)


# Killed at any point ------------------------------------------------------------------------------------


class DyingStore(LocalStore):
    """Kills this process, before or after its n-th write, deletion or start of a stage."""

    def __init__(self, root: Path, deaths_after: int, *, before: bool) -> None:
        super().__init__(root)
        self.left, self.before, self.owner = deaths_after, before, os.getpid()

    def effect(self, act: Callable[[], object]) -> object:
        self.left -= os.getpid() == self.owner
        if self.left == 0 and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = act()
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        return bool(self.effect(lambda: LocalStore.write_bytes(self, key, data, if_absent=if_absent)))

    def delete(self, key: str) -> None:
        self.effect(lambda: LocalStore.delete(self, key))


def fork(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_pilot_killed_at_any_side_effect_converges(yard: Yard, before: bool) -> None:
    for deaths_after in range(1, 60):
        plan = make_plan(yard.store, key=f"{deaths_after:02x}")

        def die(plan: Plan = plan, deaths_after: int = deaths_after) -> None:
            carry(yard, plan, DyingStore(yard.store.root, deaths_after, before=before))

        child = fork(die)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        carry(yard, plan)
        assert_whole(yard, plan)
        yard.ledger()  # never two processes for one artifact
        if code == 0:
            break
        assert code == -signal.SIGKILL
    else:
        pytest.fail("the drive has more side effects than were tried")
    assert deaths_after > 2 + len(plan.stages)  # the stop request, first and last word, six starts


@pytest.mark.parametrize("stage", ["model", "prepare", "train", "merge", "predict"])
def test_a_pilot_killed_during_a_stage_converges(yard: Yard, stage: str) -> None:
    """The stage's process goes on for a while (training saves); the next drive waits for it."""
    yard.behave(**{stage: ["slow:1"]})
    plan = make_plan(yard.store)
    child = fork(lambda: carry(yard, plan))
    wait_for(lambda: stage in yard.ledger(), 20)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert carry(yard, plan) == "finished"
    assert_whole(yard, plan)
    assert not LocalPilots("local", yard.store, yard.work).is_alive(plan.run_id)


def test_two_runs_that_share_an_artifact_make_it_once(yard: Yard) -> None:
    yard.behave(train=["slow:1"])
    first = make_plan(yard.store, kinds="data model prepare train")
    second = make_plan(yard.store, name="other", kinds="data model prepare train merge")
    children = [fork(lambda plan=plan: carry(yard, plan)) for plan in (first, second)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert sorted(yard.ledger()) == ["merge", "model", "prepare", "train"]
    assert_whole(yard, second)
