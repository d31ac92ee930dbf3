"""What follows when a group of ranks broke, and how an exception is told."""

from __future__ import annotations

import pytest

from artifacts.local import LocalStore
from train.attempts import claim_attempt, latest_attempt, read_endings, write_ending
from train.engines.base import (
    MAX_FRUITLESS_RESTARTS,
    Ending,
    GiveUp,
    Restart,
    decide,
    ending_of,
    fruitless_restarts,
)
from train.stage import StageUserError

LOST = Ending(rank=0, kind="disconnected", cause="RuntimeError: Connection closed by peer")
FAILED = Ending(rank=1, kind="failed", cause="RuntimeError: CUDA error", advice="look at the GPU")
REFUSED = Ending(rank=0, kind="refused", cause="no such layer", advice="name another", exit_code=2)
KILLED = "rank 1 was killed by SIGKILL"


@pytest.mark.parametrize(
    ("endings", "facts", "expected"),
    [
        ([LOST], {"killed": KILLED}, Restart(KILLED)),
        ([LOST], {}, Restart("rank 1 died without a word: killed, or its machine was lost")),
        ([], {}, Restart("rank 0, 1 died without a word: killed, or its machine was lost")),
        ([LOST, Ending(rank=1, kind="disconnected")], {}, Restart("the ranks lost each other")),
        ([LOST, FAILED], {"killed": ""}, Restart("rank 1 failed: RuntimeError: CUDA error")),
        (
            [LOST, FAILED],
            {"fruitless": 1},
            GiveUp(
                "rank 1 failed: RuntimeError: CUDA error (after 1 restarts without a new checkpoint)",
                "look at the GPU",
            ),
        ),
        ([FAILED], {"killed": KILLED, "fruitless": 1}, Restart(KILLED)),
        ([REFUSED], {"killed": KILLED}, GiveUp("no such layer", "name another", 2)),
        (
            [LOST],
            {"killed": KILLED, "stopping": True},
            GiveUp(f"{KILLED}, while stopping", "resume continues from the newest checkpoint"),
        ),
        ([LOST], {"killed": KILLED, "fruitless": MAX_FRUITLESS_RESTARTS - 1}, Restart(KILLED)),
    ],
)
def test_decide(endings: list[Ending], facts: dict, expected: Restart | GiveUp) -> None:
    assert decide(endings, **({"world_size": 2, "killed": "", "fruitless": 0} | facts)) == expected


def test_restarts_without_progress_end() -> None:
    decision = decide([LOST], world_size=2, killed=KILLED, fruitless=MAX_FRUITLESS_RESTARTS)
    assert isinstance(decision, GiveUp)
    assert not isinstance(decision.error(), StageUserError)
    assert isinstance(GiveUp("cause", "advice", 2).error(), StageUserError)


@pytest.mark.parametrize(
    ("next_attempt", "first_attempt", "newest_attempt", "expected"),
    [
        (2, 1, 0, 0),  # the first restart
        (3, 1, 0, 1),
        (5, 1, 4, 0),  # the attempt that just broke had saved
        (5, 1, 2, 2),
        (8, 7, 3, 0),  # checkpoints and attempts of earlier launches
    ],
)
def test_fruitless_restarts(
    next_attempt: int, first_attempt: int, newest_attempt: int, expected: int
) -> None:
    assert fruitless_restarts(next_attempt, first_attempt, newest_attempt) == expected


def test_attempts_are_claimed_once(tmp_path) -> None:
    store = LocalStore(tmp_path)
    assert latest_attempt(store, "train/key") == 0
    assert [claim_attempt(store, "train/key") for _ in range(12)] == list(range(1, 13))
    assert latest_attempt(store, "train/key") == 12
    for ending in (FAILED, LOST):
        write_ending(store, "train/key", 12, ending)
    assert read_endings(store, "train/key", 12) == [LOST, FAILED]
    assert read_endings(store, "train/key", 11) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StageUserError("cause", "advice"), "refused"),
        (KeyError("column"), "refused"),
        (ConnectionResetError("gone"), "disconnected"),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"),
            "disconnected",
        ),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp"), "disconnected"),
        (RuntimeError("CUDA out of memory"), "failed"),
        (OSError("disk full"), "failed"),
    ],
)
def test_how_an_exception_is_told(error: Exception, kind: str) -> None:
    assert ending_of(error, 1).kind == kind
