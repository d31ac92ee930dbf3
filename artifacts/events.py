"""What a run says while it goes on: rows of the stream `runs/<run-id>/events/` in the store.

Every stage process is one writer. The launcher merges the writers' rows for `status`, the live table and the
report. A stop request is one object beside them.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Any, Literal

from artifacts.segments import SegmentWriter
from artifacts.store import Store

EventKind = Literal[
    "submitted", "started", "progress", "note", "checkpoint", "restarted", "drained", "failed", "finished"
]


def events_prefix(run_id: str) -> str:
    return f"runs/{run_id}/events"


def stop_key(run_id: str) -> str:
    """Present while the run is asked to stop: ranks save at the next step boundary and end as drained."""
    return f"runs/{run_id}/stop.json"


class Events:
    """Writes one process's events of one stage.

    Rows: `{"time_s": <Unix time>, "stage", "kind", …}`; to the microsecond, so that rows of writers which
    follow one another keep their order. By kind: `progress` has done, total, unit ("bytes", "records",
    "steps", "shards", "answers") and, in training, loss, tokens_per_second, epoch; `note` text; `checkpoint`
    step and prefix; `restarted` reason; `failed` cause (one line), advice, detail.
    """

    def __init__(self, store: Store, run_id: str, stage: str, *, flush_every_s: float = 0.5) -> None:
        self.stage = stage
        writer = f"{stage}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._segments = SegmentWriter(store, events_prefix(run_id), writer, flush_every_s=flush_every_s)

    def say(self, kind: EventKind, **facts: Any) -> None:
        self._segments.append({"time_s": round(time.time(), 6), "stage": self.stage, "kind": kind, **facts})
        if kind != "progress":
            self._segments.flush()

    def progress(self, done: int, total: int | None, unit: str, **facts: Any) -> None:
        self.say("progress", done=done, total=total, unit=unit, **facts)

    def flush(self) -> None:
        self._segments.flush()
