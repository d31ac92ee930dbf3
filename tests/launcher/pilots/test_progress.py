"""`launcher.pilots.progress`: the line on the pilot's Job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from launcher.errors import ClusterError
from launcher.pilots import progress
from launcher.pilots.progress import ProgressTeller, progress_line
from launcher.progress.board import Board
from launcher.progress.journal import Journal
from launcher.status import Fail
from tests import plan_parts
from tests.launcher.driving import wait_for


def row(stage: str, kind: str, time_s: float, **facts: Any) -> dict[str, Any]:
    return {"stage": stage, "kind": kind, "time_s": time_s, **facts}


STEPS = {"total": 100, "unit": "steps"}
RUNNING = [
    row("run", "started", 1.0, skipped=["data"]),
    row("train", "started", 2.0),
    row("train", "progress", 10.0, done=10, **STEPS, loss=2.0),
    row("train", "progress", 40.0, done=40, **STEPS, loss=1.25, tokens_per_second=310.4),
]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], "new, 0 of 2 stages complete"),
        (RUNNING, "train 40/100 steps, loss 1.2500, 310 tokens/s, ETA 1:00"),
        (
            [*RUNNING, row("train", "restarted", 41.0, reason="a worker was lost")],
            "train restarting, loss 1.2500, 310 tokens/s, restarted 1 ×, a worker was lost",
        ),
        (
            [RUNNING[0], row("train", "note", 2.0, text="no node has 8 free GPUs")],
            "train waiting, no node has 8 free GPUs",
        ),
        (
            [*RUNNING, row("train", "finished", 99.0), row("run", "finished", 99.5)],
            "complete, 2 of 2 stages complete",
        ),
        (
            [*RUNNING, row("run", "failed", 60.0, failed_stage="train", cause="loss is NaN")],
            "failed, 1 of 2 stages complete: train: loss is NaN",
        ),
    ],
)
def test_the_line_says_how_the_run_stands(rows: list[dict[str, Any]], line: str) -> None:
    assert progress_line(Board.of(["data", "train"], rows)) == line


def test_a_change_is_told_once_and_the_end_always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.02)
    store, told = LocalStore(tmp_path), []
    journal = Journal(store, "bot-1")
    with ProgressTeller(store, "bot-1", ["train"], told.append):
        journal.started(skipped=[])
        events = Events(store, "bot-1", "train", flush_every_s=0)
        events.progress(1, 2, "steps")
        wait_for(lambda: "train 1/2 steps" in told)
        journal.failed(plan_parts.stage(StageKind.TRAIN, None), Fail("loss is NaN", ""), "")
    assert told[-1] == "failed, 0 of 1 stages complete: train: loss is NaN"
    assert len(told) == len(set(told))


def test_an_api_server_out_of_reach_does_not_end_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.02)
    store, asked = LocalStore(tmp_path), []

    def tell(line: str) -> None:
        asked.append(line)
        raise ClusterError("PATCH job", "out of reach")

    with ProgressTeller(store, "bot-1", ["train"], tell):
        wait_for(lambda: len(asked) > 2)  # tried again until it is told
