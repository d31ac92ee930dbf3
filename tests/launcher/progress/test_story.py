"""`launcher.progress.story`: what is worth telling of a run afterwards."""

from __future__ import annotations

from typing import Any

from launcher.progress.story import story


def row(stage: str, kind: str, time_s: float, **facts: Any) -> dict[str, Any]:
    return {"stage": stage, "kind": kind, "time_s": time_s, **facts}


def test_it_tells_who_what_went_wrong_and_the_end_in_order_of_time() -> None:
    rows = [
        row("run", "finished", 90.0),
        row("run", "submitted", 1.0, user="ana", host="laptop"),
        row("run", "started", 2.0, pid=7, host="pod-1", skipped=["image", "data"]),
        row("train", "note", 3.0, text="a worker waits: no node has 8 free GPUs"),
        row("train", "started", 10.0, pid=1),
        row("train", "progress", 11.0, done=1, total=9, unit="steps"),
        row("train", "restarted", 20.0, reason="its node was lost"),
        row("run", "note", 80.0, text="the report could not be written"),
    ]
    assert [line.partition("  ")[2] for line in story(rows)] == [
        "submitted by ana on laptop",
        "driven by pid 7 on pod-1, image, data complete already",
        "train: a worker waits: no node has 8 free GPUs",
        "train restarted: its node was lost",
        "the report could not be written",
        "complete",
    ]


def test_a_failure_and_a_stop_are_told_with_their_reasons() -> None:
    rows = [
        row("run", "submitted", 1.0, user="", host="ci"),
        row("train", "failed", 2.0, cause="loss is NaN"),
        row("run", "failed", 3.0, failed_stage="train", cause="loss is NaN"),
        row("train", "drained", 4.0),
        row("run", "drained", 5.0),
    ]
    assert [line.partition("  ")[2] for line in story(rows)] == [
        "submitted by somebody on ci",
        "train failed: loss is NaN",
        "failed in stage train: loss is NaN",
        "train saved and stopped",
        "stopped on request, after saving",
    ]


def test_of_a_long_story_the_beginning_and_the_end_stay() -> None:
    rows = [row("train", "restarted", float(i), reason=f"loss {i}") for i in range(100)]
    lines = story(rows)
    assert len(lines) == 41 and lines[5] == "… 60 more"
    assert lines[0].endswith("loss 0") and lines[-1].endswith("loss 99")
