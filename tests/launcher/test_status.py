"""`launcher.status`: each row of the failure table, budgets, and agreement of exit code and marker."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.status import (
    FAILURES,
    MAX_ATTEMPTS,
    Attempt,
    Done,
    Fail,
    Observation,
    Phase,
    Retry,
    Wait,
    classify,
    decide,
)


def ended(code: int, **facts: object) -> Observation:
    return Observation(phase="ended", exit_code=code, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phase", "committed", "decision"),
    [
        ("absent", False, Retry(0.0, "not started")),
        ("absent", True, Done()),
        ("elsewhere", False, Wait()),
        ("running", False, Wait()),
        ("running", True, Wait()),  # it has committed, and is about to end
    ],
)
def test_before_the_end(phase: Phase, committed: bool, decision: object) -> None:
    assert decide(Observation(phase=phase, committed=committed)) == decision


def test_success_needs_exit_code_and_marker() -> None:
    assert decide(ended(0, committed=True)) == Done()


@pytest.mark.parametrize(("code", "committed"), [(0, False), (1, True), (-11, True), (75, True), (2, True)])
def test_a_disagreement_is_named_and_asked_once_more(code: int, committed: bool) -> None:
    first = decide(ended(code, committed=committed))
    assert isinstance(first, Retry) and f"exit code {code}" in first.reason and "marker" in first.reason
    second = decide(ended(code, committed=committed), [Attempt(failure=first.failure, progressed=False)])
    assert isinstance(second, Fail) and "tried 2 times" in second.reason


def test_a_users_mistake_is_told_in_the_stages_words() -> None:
    decision = decide(ended(2, cause="bot.jsonl: record 7: no answer", advice="mend it"))
    assert decision == Fail("bot.jsonl: record 7: no answer", "mend it", user_error=True)


def test_a_stage_that_gives_advice_knows_best() -> None:
    decision = decide(ended(1, cause="loss is NaN at step 3", advice="lower it", output="NCCL error: x"))
    assert decision == Fail("loss is NaN at step 3", "lower it")


def test_memory_is_blamed_only_for_what_died_by_it() -> None:
    rank = ended(1, cause="rank 1 was killed by SIGKILL", advice="see the log", oom_kills=1)
    assert "ran out of memory" in str(decide(rank))
    other = ended(1, cause="ValueError: no such thing", oom_kills=1)  # somebody else's process was killed
    assert "memory" not in str(decide(other))


def test_what_a_cluster_did_is_told_in_the_backends_words() -> None:
    seen = ended(
        -9,
        ended_by="memory-limit",
        cause="it reached its limit of 4Gi",
        advice="raise it",
        output="NCCL error",
    )
    decision = decide(seen)
    assert isinstance(decision, Fail) and decision.advice == "raise it"
    assert decision.reason.endswith("was killed: it reached its limit of 4Gi")
    lost = Observation(phase="ended", ended_by="node-lost", cause="node2 is gone")  # nobody saw its exit code
    assert decide(lost) == Retry(1.0, "its node was lost: node2 is gone", "node-lost")
    drained = ended(75, ended_by="evicted")
    assert isinstance(retry := decide(drained), Retry) and retry.failure == "drained"


def test_what_nobody_knows_is_not_retried_and_quotes_the_log() -> None:
    advice = "the end of its log says more"
    observation = ended(1, output="a\nValueError: no such thing\n\n")
    assert decide(observation) == Fail("ValueError: no such thing", advice)
    assert decide(ended(7)) == Fail("exit code 7", advice)


#: One real-looking ending for each row of the table.
ENDINGS = {
    "drained": ended(75),
    **{row.name: ended(-9, ended_by=row.name) for row in FAILURES if row.seen},
    "out-of-memory": ended(-9, oom_kills=1),
    "gpu-out-of-memory": ended(
        1, cause="OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"
    ),
    "disk-full": ended(1, cause="OSError: [Errno 28] No space left on device: '/store/train'"),
    "shared-memory": ended(
        1, output="RuntimeError: unable to allocate shared memory(shm) for file </torch_1_2>"
    ),
    "port-taken": ended(1, output="RuntimeError: The server socket has failed to listen on any local …"),
    "communication": ended(1, cause="RuntimeError: [gloo/tcp/pair.cc:534] Connection closed by peer [::1]"),
    "gpu-fault": ended(1, output="CUDA error: an illegal memory access was encountered"),
    "hub-refused": ended(1, cause="GatedRepoError: 401 Client Error. Access to model x is restricted"),
    "network": ended(1, cause="ConnectionError: Max retries exceeded with url: /api/models/x"),
    "permission": ended(1, cause="PermissionError: [Errno 13] Permission denied: '/root'"),
    "killed": ended(-signal.SIGKILL),
    "illegal-instruction": ended(-signal.SIGILL),
    "crashed": ended(-signal.SIGSEGV, output="Fatal Python error: Segmentation fault"),
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_each_row_is_reached_and_keeps_its_budget(failure: object) -> None:
    row = next(row for row in FAILURES if row is failure)
    observation = ENDINGS[row.name]
    assert classify(observation) is row
    history: list[Attempt] = []
    for delay_s in row.retry_delays_s:
        decision = decide(observation, history)
        assert isinstance(decision, Retry)
        assert (decision.delay_s, decision.failure) == (delay_s, row.name)
        history.append(Attempt(failure=row.name, progressed=False))
    last = decide(observation, history)
    assert isinstance(last, Fail) and row.cause in last.reason and last.advice == row.advice


def test_the_signal_is_named() -> None:
    decision = decide(ended(-signal.SIGSEGV))
    assert isinstance(decision, Retry) and "SIGSEGV" in decision.reason
    assert "signal 64" in str(decide(ended(-64)).reason) or isinstance(decide(ended(-64)), Fail)  # type: ignore[union-attr]


def test_an_attempt_that_progressed_renews_the_budget_but_not_for_ever() -> None:
    observation = ENDINGS["killed"]
    stuck = [Attempt(failure="killed", progressed=False)] * 3
    assert isinstance(decide(observation, stuck), Fail)
    assert decide(observation, [*stuck, Attempt(failure="killed", progressed=True)]) == Retry(
        1.0, "something outside killed it (SIGKILL)", "killed"
    )
    assert isinstance(decide(observation, [Attempt(failure="killed", progressed=True)] * MAX_ATTEMPTS), Fail)


@given(
    phase=st.sampled_from(["absent", "elsewhere", "running", "ended"]),
    code=st.none() | st.integers(-64, 255),
    committed=st.booleans(),
    cause=st.text(max_size=40),
    advice=st.text(max_size=10),
    output=st.text(max_size=40),
    oom_kills=st.integers(0, 2),
    history=st.lists(
        st.builds(
            Attempt,
            failure=st.sampled_from([row.name for row in FAILURES] + ["disagreement"]),
            progressed=st.booleans(),
        ),
        max_size=30,
    ),
)
def test_every_observation_has_a_decision_that_can_be_acted_on(
    phase: Phase,
    code: int | None,
    committed: bool,
    cause: str,
    advice: str,
    output: str,
    oom_kills: int,
    history: list[Attempt],
) -> None:
    observation = Observation(
        phase=phase,
        exit_code=code,
        committed=committed,
        cause=cause,
        advice=advice,
        output=output,
        oom_kills=oom_kills,
    )
    match decide(observation, history):
        case Done():
            assert committed
        case Retry(delay_s=delay_s, reason=reason):
            assert delay_s >= 0 and reason and phase in ("absent", "ended")
        case Fail(reason=reason):
            assert reason and phase == "ended"
