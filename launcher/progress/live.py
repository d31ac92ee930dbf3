"""A run while it goes on: a live table of its stages on a terminal, plain lines anywhere else.

`follow` reads the run's events and shows what the board says; it neither starts nor stops anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from artifacts.events import events_prefix
from artifacts.segments import SegmentReader
from artifacts.store import Store
from launcher.progress.board import Board, StageRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: A run of many hours has many segments to list: at most this share of the time goes into looking.
_LOOKING_SHARE = 0.2

_PLAIN_EVERY_S = 15.0  # progress lines of one stage
_BAR_CELLS = 16

_MARKS = {
    "pending": ("·", "dim"),
    "waiting": ("…", "yellow"),
    "running": ("▸", "bold cyan"),
    "restarting": ("↻", "yellow"),
    "complete": ("✓", "green"),
    "drained": ("⏸", "yellow"),
    "failed": ("✗", "bold red"),
}


class View(Protocol):
    def show(self, board: Board) -> None: ...

    def close(self, board: Board) -> None:
        """The last look; leaves the terminal as it was."""
        ...


def follow(
    store: Store,
    run_id: str,
    board: Board,
    view: View,
    alive: Callable[[], bool],
    *,
    waiting: Callable[[], str] = lambda: "",
    poll_s: float = 0.15,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Board:
    """Show the run until nobody drives it any more. Returns its board as it is then.

    Until the pilot has begun, `waiting` says what holds it up. Between two looks `poll_s` seconds pass.
    KeyboardInterrupt passes through, after the view is closed: the run goes on.
    """
    reader = SegmentReader(store, events_prefix(run_id))
    try:
        while True:
            driven, began = alive(), clock()
            board.apply(reader.poll())
            board.waiting = waiting() if board.state == "new" and driven else ""
            view.show(board)
            if not driven:  # asked before the poll: nothing was written after it
                return board.without_pilot()
            sleep(max(poll_s, (clock() - began) / _LOOKING_SHARE))
    finally:
        view.close(board)


class PlainView:
    """One line when a stage changes its state, and one every so often while it makes progress."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        every_s: float = _PLAIN_EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write, self._every_s, self._clock = write, every_s, clock
        self._said: dict[str, tuple[str, str, int]] = {}
        self._said_at: dict[str, float] = {}
        self._waiting = ""

    def show(self, board: Board) -> None:
        now = self._clock()
        if board.waiting != self._waiting:
            self._waiting = board.waiting
            if board.waiting:
                self._write(f"{_time_of_day(now)} {'pilot':<8} waiting · {board.waiting}")
        for name, stage in board.stages.items():
            change = (stage.state, stage.note, stage.restarts)
            changed = change != self._said.get(name, ("pending", "", 0))
            due = (
                stage.state == "running"
                and stage.done
                and now - self._said_at.get(name, 0.0) >= self._every_s
            )
            if changed or due:
                self._said[name], self._said_at[name] = change, now
                self._write(f"{_time_of_day(now)} {name:<8} {stage.state}{describe(stage, now)}")

    def close(self, board: Board) -> None:
        self.show(board)


class LiveView:
    """The table, redrawn in place."""

    def __init__(self, console: Console, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, board: Board) -> None:
        title = f"{self._title}  {board.waiting}" if board.waiting else self._title
        self._live.update(table(board, title, time.time()), refresh=True)

    def close(self, board: Board) -> None:
        self.show(board)
        self._live.stop()


def table(board: Board, title: str, now_s: float) -> Table:
    """The board as a rich table: one row a stage."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "stage", "progress", "", "time", "left"):
        grid.add_column(heading, justify="right" if heading in ("time", "left") else "left", no_wrap=True)
    grid.add_column("")  # gives way first where the terminal is narrow
    for stage in board.stages.values():
        mark, style = _MARKS[stage.state]
        share = stage.share
        busy = stage.state == "running" and share is None
        facts_style = "dim" if stage.state == "complete" else ""
        bar = ProgressBar(total=None if busy else 1.0, completed=share or 0.0, width=_BAR_CELLS, pulse=busy)
        grid.add_row(
            Text(mark, style=style),
            Text(stage.name, style=style if stage.state != "pending" else "dim"),
            bar if stage.state != "pending" else Text(""),
            f"{share:4.0%}" if share is not None and stage.state != "pending" else "",
            _shown_duration(stage, now_s),
            duration(stage.eta_s()),
            Text(_facts(stage), style=facts_style, no_wrap=True, overflow="ellipsis"),
        )
    return grid


def describe(stage: StageRow, now_s: float) -> str:
    """What a plain line says after the state."""
    parts = [f"{stage.share:.0%}"] if stage.share is not None and stage.state == "running" else []
    parts += [_facts(stage)] if stage.state not in ("pending",) else []
    if stage.state in ("complete", "failed", "drained") and not stage.skipped:
        parts.append(f"in {duration(stage.duration_s(now_s))}" if stage.started_s is not None else "")
    if stage.eta_s() is not None:
        parts.append(f"{duration(stage.eta_s())} left")
    return "".join(f" · {part}" for part in parts if part)


def duration(seconds: float | None) -> str:
    """`7.4 s`, `3:07`, `2:03:07`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
    return f"{hours}:{minutes:02d}:{rest:02d}"


def amount(count: float, unit: str) -> str:
    """A count with its unit, bytes in a readable size."""
    if unit != "bytes":
        return f"{count:,.0f}"
    for name in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {name}" if name == "B" else f"{count:.1f} {name}"
        count /= 1000
    return f"{count:.1f} TB"


def _facts(stage: StageRow) -> str:
    """How far, loss, speed, restarts, and what the stage has to say."""
    parts = []
    if stage.state == "complete" and stage.skipped:
        parts.append("complete already")
    elif stage.total is not None and stage.state in ("running", "complete", "drained", "failed"):
        unit = "" if stage.unit == "bytes" else f" {stage.unit}"
        done = amount(stage.done, stage.unit)
        of = "" if stage.done == stage.total else f"/{amount(stage.total, stage.unit)}"
        parts.append(f"{done}{of}{unit if max(stage.done, stage.total or 0) > 1 else unit.removesuffix('s')}")
    if not stage.skipped:
        if stage.epoch is not None and stage.state == "running":
            parts.append(f"epoch {stage.epoch:.2f}")
        if stage.loss is not None:
            parts.append(f"loss {stage.loss:.4f}")
        if stage.tokens_per_second is not None:
            parts.append(f"{stage.tokens_per_second:,.0f} tokens/s")
        if stage.restarts:
            parts.append(f"restarted {stage.restarts} ×")
    if stage.note:
        parts.append(stage.note.splitlines()[0])
    return " · ".join(parts)


def _shown_duration(stage: StageRow, now_s: float) -> str:
    return "" if stage.state == "pending" else duration(stage.duration_s(now_s))


def _time_of_day(now_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now_s))
