"""How a training tells of itself: rows of metrics in the store, the run's events, and trackers elsewhere."""

from __future__ import annotations

import os
from typing import Any

from train import metrics
from train.trackers import Row, Trackers


class Progress:
    """One attempt's. Every rank has one and calls it; what it is told goes out from rank 0 alone (`writes`).

    `task` is the `train.loop.TrainTask`.
    """

    def __init__(self, task: Any, *, writes: bool) -> None:
        self._events = task.events if writes else None
        self._rows = metrics.writer(task.store, task.prefix, task.attempt) if writes else None
        self._trackers = Trackers.of_environment(task, os.environ) if writes else None

    def append(self, row: Row) -> None:
        if self._rows is not None and self._trackers is not None:
            self._rows.append(dict(row))
            self._trackers.append(row)

    def step(self, row: Row, max_steps: int) -> None:
        """The row of a step that is done, of `max_steps`."""
        self.append(row)
        if self._events is not None:
            shown = {name: row[name] for name in ("loss", "tokens_per_second", "epoch")}
            self._events.progress(row["step"], max_steps, "steps", **shown)

    def say(self, text: str, **facts: Any) -> None:
        if self._events is not None:
            self._events.say("note", text=text, **facts)

    def flush(self) -> None:
        if self._rows is not None and self._trackers is not None:
            self._rows.flush()
            self._trackers.flush()

    def close(self) -> None:
        """Nothing follows."""
        self.flush()
        if self._trackers is not None:
            self._trackers.close()
