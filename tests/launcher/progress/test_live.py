"""The board that events fold into, and the two views of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from artifacts.local import LocalStore
from artifacts.segments import SegmentWriter
from launcher.progress.board import Board
from launcher.progress.live import PlainView, amount, duration, follow, table

STAGES = ["data", "prepare", "train"]


def row(time_s: float, stage: str, kind: str, **facts: Any) -> dict[str, Any]:
    return {"time_s": time_s, "stage": stage, "kind": kind, **facts}


STORY = [
    row(100, "run", "started", pid=7, host="box", skipped=["data"]),
    row(101, "prepare", "started", pid=8),
    row(102, "prepare", "progress", done=50, total=100, unit="records"),
    row(103, "prepare", "finished"),
    row(104, "train", "started", pid=9),
    row(
        110,
        "train",
        "progress",
        done=10,
        total=40,
        unit="steps",
        loss=2.0,
        tokens_per_second=900.0,
        epoch=0.5,
    ),
    row(112, "train", "checkpoint", step=10, prefix="train/x/checkpoint-10-1"),
    row(
        120,
        "train",
        "progress",
        done=20,
        total=40,
        unit="steps",
        loss=1.5,
        tokens_per_second=1000.0,
        epoch=1.0,
    ),
]


def test_a_board_in_the_middle() -> None:
    board = Board.of(STAGES, STORY)
    assert board.state == "running" and board.pilot == "pid 7 on box"
    data, prepare, train = board.stages.values()
    assert (data.state, data.skipped) == ("complete", True)
    assert (prepare.state, prepare.duration_s(999)) == ("complete", 2)
    assert (train.share, train.loss, train.checkpoint_step) == (0.5, 1.5, 10)
    assert train.eta_s() == pytest.approx(20.0)  # 10 steps took 10 s, 20 are left


def test_a_resumed_training_is_not_thought_faster_than_it_is() -> None:
    """It begins at step 30: the first 30 steps say nothing about its speed."""
    rows = [
        row(200, "train", "started"),
        row(210, "train", "progress", done=30, total=40, unit="steps"),
        row(214, "train", "progress", done=32, total=40, unit="steps"),
    ]
    board = Board.of(STAGES, [*STORY, *rows])
    assert board.stages["train"].eta_s() == pytest.approx(16.0)


def test_without_a_pilot_a_running_run_is_interrupted() -> None:
    board = Board.of(STAGES, STORY, alive=False)
    assert (board.state, board.stages["train"].state) == ("interrupted", "pending")


def test_a_new_drive_keeps_the_times_of_what_was_complete() -> None:
    again = [row(300, "run", "started", pid=8, host="box", skipped=["data", "prepare"])]
    board = Board.of(STAGES, [*STORY, *again])
    assert board.created_s == 100 and board.started_s == 300
    assert board.stages["prepare"].duration_s(999) == 2
    assert (board.stages["train"].state, board.stages["train"].loss) == ("pending", None)


def test_a_failure_is_told() -> None:
    rows = [
        row(130, "train", "failed", cause="loss is NaN", advice="lower it"),
        row(
            131,
            "run",
            "failed",
            failed_stage="train",
            cause="loss is NaN",
            advice="lower it",
            evidence="x.log",
        ),
    ]
    board = Board.of(STAGES, [*STORY, *rows])
    assert (board.state, board.failed_stage, board.cause) == ("failed", "train", "loss is NaN")
    assert board.stages["train"].state == "failed"


def test_a_restart_is_counted() -> None:
    rows = [row(130, "train", "restarted", reason="worker 1 was killed"), row(131, "train", "started")]
    board = Board.of(STAGES, [*STORY, rows[0]])
    assert (board.stages["train"].state, board.stages["train"].note) == ("restarting", "worker 1 was killed")
    board.apply(rows[1:])
    assert (board.stages["train"].state, board.stages["train"].restarts) == ("running", 1)


@given(st.permutations(STORY))
def test_rows_of_one_poll_may_come_in_any_order(rows: list[dict[str, Any]]) -> None:
    assert Board.of(STAGES, rows) == Board.of(STAGES, STORY)


def test_plain_lines_are_few() -> None:
    lines: list[str] = []
    now = [0.0]
    view = PlainView(lines.append, every_s=15, clock=lambda: now[0])
    board = Board.of(STAGES)
    for number, event in enumerate(STORY):
        board.apply([event])
        for _ in range(10):  # looks in between say nothing new
            now[0] = number + 0.1
            view.show(board)
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "data     complete · complete already",
        "prepare  running",
        "prepare  complete · 100 records · in 2.0 s",
        "train    running",
    ]
    now[0] += 15
    view.show(board)
    assert (
        "train    running · 50% · 20/40 steps · epoch 1.00 · loss 1.5000 · 1,000 tokens/s · 20 s left"
        in lines[-1]
    )


def test_the_table_shows_progress_loss_speed_and_time_left() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=False)
    console.print(table(Board.of(STAGES, STORY), "bot-1a2b3c4d", 124.0))
    text = screen.getvalue()
    assert "bot-1a2b3c4d" in text
    train = next(line for line in text.splitlines() if "train" in line)
    for part in ("▸", "━", "50%", "20 s", "20/40 steps", "loss 1.5000", "1,000 tokens/s"):
        assert part in train
    assert "complete already" in next(line for line in text.splitlines() if "data" in line)


def test_follow_ends_with_the_pilot_and_misses_no_last_word(tmp_path: Any) -> None:
    store = LocalStore(tmp_path)
    writer = SegmentWriter(store, "runs/bot-1/events", "run-1", flush_every_s=0)
    looks = iter([True, True, False])
    story = iter(STORY)

    def alive() -> bool:
        driven = next(looks)
        if not driven:  # the pilot's last word, between two looks
            writer.append(row(130, "run", "finished"))
        return driven

    def sleep(seconds: float) -> None:
        writer.append(next(story))

    lines: list[str] = []
    board = follow(store, "bot-1", Board.of(STAGES), PlainView(lines.append), alive, sleep=sleep)
    assert board.state == "complete"


def test_an_interrupted_follower_closes_its_view(tmp_path: Any) -> None:
    closed = []

    class View:
        def show(self, board: Board) -> None:
            raise KeyboardInterrupt

        def close(self, board: Board) -> None:
            closed.append(board)

    with pytest.raises(KeyboardInterrupt):
        follow(LocalStore(tmp_path), "bot-1", Board.of(STAGES), View(), lambda: True)
    assert closed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.04, "0.0 s"), (9.96, "10.0 s"), (42.4, "42 s"), (187, "3:07"), (7387, "2:03:07")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (1234, "steps", "1,234"),
        (999, "bytes", "999 B"),
        (54_600, "bytes", "54.6 kB"),
        (5e12, "bytes", "5.0 TB"),
    ],
)
def test_amounts(count: float, unit: str, text: str) -> None:
    assert amount(count, unit) == text
