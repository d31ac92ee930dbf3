"""When each stage ran, folded from the run's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Ending = Literal["finished", "failed", "drained", "restarted", "interrupted"]

_IDLE_SHARE = 0.15  # of the time in which anything ran: longer pauses are drawn as a break,
_IDLE_S = 120.0  # unless they are as short as starting a stage is
_BREAK_SHARE = 0.03  # width of a drawn break


@dataclass(frozen=True)
class Bar:
    """One attempt at a stage, in Unix seconds."""

    start_s: float
    end_s: float
    ending: Ending


@dataclass(frozen=True)
class StageLine:
    name: str
    bars: list[Bar] = field(default_factory=list)
    checkpoints: list[tuple[float, int]] = field(default_factory=list)  # (Unix seconds, step)

    @property
    def seconds(self) -> float:
        return sum(bar.end_s - bar.start_s for bar in self.bars)


def stage_lines(stages: Sequence[str], events: Sequence[Mapping[str, Any]]) -> list[StageLine]:
    """A line per stage of the plan. An attempt without an ending lasted until the last sign of life."""
    return [_line(name, [row for row in events if row.get("stage") == name]) for name in stages]


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> StageLine:
    line = StageLine(name)
    started: float | None = None
    last = 0.0
    for row in rows:
        at, kind = float(row["time_s"]), row["kind"]
        if kind == "started":
            if started is not None:
                line.bars.append(Bar(started, max(last, started), "interrupted"))
            started = at
        elif kind == "checkpoint":
            line.checkpoints.append((at, int(row.get("step") or 0)))
        elif kind in ("finished", "failed", "drained", "restarted") and started is not None:
            line.bars.append(Bar(started, at, kind))
            started = None
        last = at
    if started is not None:
        line.bars.append(Bar(started, max(last, started), "interrupted"))
    return line


class Clock:
    """Unix seconds to a share of the chart's width, 0 to 1. Long pauses between attempts (a run resumed the
    next day) are cut out: `breaks` holds their places and lengths in seconds."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        busy = _union(spans)
        active = sum(end - start for start, end in busy) or 1.0
        self.breaks: list[tuple[float, float]] = []
        self._pieces: list[tuple[float, float, float]] = []  # (start_s, end_s, units before it)
        units = 0.0
        previous: float | None = None
        for start, end in busy:
            if previous is not None:
                idle = start - previous
                cut = idle > max(_IDLE_S, _IDLE_SHARE * active)
                width = _BREAK_SHARE * active if cut else idle
                if cut:
                    self.breaks.append((units + width / 2, idle))
                units += width
            self._pieces.append((start, end, units))
            units += end - start
            previous = end
        self.total = units or 1.0
        self.breaks = [(at / self.total, idle) for at, idle in self.breaks]

    def __call__(self, unix_s: float) -> float:
        before = 0.0
        for start, end, units in self._pieces:
            if unix_s < start:
                break
            before = units + min(unix_s, end) - start
        return before / self.total


def _union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
