"""What a stage said of its own failure."""

from __future__ import annotations

from typing import Any

from artifacts.contract import StagePlan
from artifacts.events import events_prefix
from artifacts.segments import read_all
from artifacts.store import Store

_CLOCK_ROUNDING_S = 0.001  # rows hold milliseconds


def last_words(store: Store, run_id: str, stage: StagePlan, since_s: float) -> tuple[str, str]:
    """Cause and advice of the stage's newest `failed` event since `since_s` (Unix time), or empty."""
    said: dict[str, Any] = {}
    for row in read_all(store, events_prefix(run_id)):
        since = row["time_s"] >= since_s - _CLOCK_ROUNDING_S
        if row["stage"] == stage.kind and row["kind"] == "failed" and since:
            said = max(said, row, key=lambda row: float(row.get("time_s", 0)))
    return str(said.get("cause", "")), str(said.get("advice", ""))
