"""What happened to a run, line by line: who asked for it, what went wrong on the way, how it ended. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from launcher.progress.journal import RUN

Row = Mapping[str, Any]

#: Lines shown; of a longer story the first and the newest.
_MOST_LINES = 40


def story(rows: Iterable[Row]) -> list[str]:
    """The notable rows of a run's events in order of time, one line each. What went as planned is left out:
    the board shows it."""
    lines: list[str] = []
    for row in sorted(rows, key=lambda row: float(row["time_s"])):
        told = _of_run(row) if row["stage"] == RUN else _of_stage(row)
        if told:
            lines.append(f"{_moment(float(row['time_s']))}  {told}")
    left_out = len(lines) - _MOST_LINES
    if left_out <= 0:
        return lines
    return [*lines[:5], f"… {left_out} more", *lines[-(_MOST_LINES - 5) :]]


def _of_run(row: Row) -> str:
    match row["kind"]:
        case "submitted":
            return f"submitted by {row['user'] or 'somebody'} on {row['host']}"
        case "started":
            skipped = row.get("skipped") or ()
            already = f", {', '.join(skipped)} complete already" if skipped else ""
            return f"driven by pid {row.get('pid')} on {row.get('host')}{already}"
        case "drained":
            return "stopped on request, after saving"
        case "failed":
            return f"failed in stage {row['failed_stage']}: {row['cause']}"
        case "finished":
            return "complete"
    return str(row.get("text", ""))


def _of_stage(row: Row) -> str:
    match row["kind"]:
        case "restarted":
            return f"{row['stage']} restarted: {row.get('reason', '')}"
        case "note":
            return f"{row['stage']}: {row['text']}" if row["text"] else ""
        case "failed":
            return f"{row['stage']} failed: {row.get('cause', '')}"
        case "drained":
            return f"{row['stage']} saved and stopped"
    return ""


def _moment(time_s: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(time_s))
