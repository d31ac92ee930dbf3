"""The state of a run and its stages, folded from the rows of its events. Pure: the live table, `status` and
the list of runs read the same board."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.progress.journal import RUN

StageState = Literal["pending", "waiting", "running", "restarting", "complete", "drained", "failed"]
#: interrupted: it was running, and its pilot is gone.
RunState = Literal["new", "running", "interrupted", "complete", "drained", "failed"]


@dataclass
class StageRow:
    """What is known of one stage. Times are Unix times in seconds."""

    name: str
    state: StageState = "pending"
    skipped: bool = False  # it was complete before this drive began
    started_s: float | None = None
    ended_s: float | None = None
    done: float = 0
    total: float | None = None
    unit: str = ""
    progress_since_s: float | None = None  # the first progress of this attempt, and how far it was then:
    progress_from: float = 0  # a resumed training does not begin at zero
    progress_at_s: float | None = None
    loss: float | None = None
    epoch: float | None = None
    tokens_per_second: float | None = None
    checkpoint_step: int | None = None
    restarts: int = 0
    note: str = ""

    @property
    def share(self) -> float | None:
        """Done over total, 0 to 1; None where the total is unknown."""
        if self.state == "complete":
            return 1.0
        return min(self.done / self.total, 1.0) if self.total else None

    def eta_s(self) -> float | None:
        """Seconds left at the speed of this attempt so far; None until it can be told."""
        since, at, gained = self.progress_since_s, self.progress_at_s, self.done - self.progress_from
        if self.state != "running" or not self.total or since is None or at is None or gained <= 0:
            return None
        return (at - since) / gained * max(0.0, self.total - self.done)

    def duration_s(self, now_s: float) -> float | None:
        if self.started_s is None:
            return None
        return max(0.0, (self.ended_s if self.ended_s is not None else now_s) - self.started_s)


@dataclass
class Board:
    stages: dict[str, StageRow]
    state: RunState = "new"
    created_s: float | None = None  # it was submitted first, or the first drive began
    started_s: float | None = None  # the newest drive began
    ended_s: float | None = None
    driven_s: float = 0.0  # time in drives that have ended, pauses between them left out
    pilot: str = ""  # `pid 123 on host`
    user: str = ""  # who asked for the newest drive, where that is known
    waiting: str = ""  # why the pilot has not begun
    failed_stage: str = ""
    cause: str = ""
    advice: str = ""
    evidence: str = ""
    user_error: bool = False
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, stages: Sequence[str], rows: Iterable[Mapping[str, Any]] = (), *, alive: bool = True
    ) -> Board:
        """The board of a run's stages after `rows`. `alive`: whether somebody drives it now."""
        board = cls(stages={name: StageRow(name) for name in stages})
        board.apply(rows)
        return board if alive else board.without_pilot()

    def apply(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in rows in order of time (rows of one poll may come from several writers)."""
        for row in sorted(rows, key=lambda row: float(row["time_s"])):
            if row["stage"] == RUN:
                self._apply_run(row)
            elif row["stage"] in self.stages:
                _apply_stage(self.stages[row["stage"]], row)

    def without_pilot(self) -> Board:
        if self.state == "running":
            self.state = "interrupted"
            for stage in self.stages.values():
                if stage.state in ("running", "waiting", "restarting"):
                    stage.state = "pending"
        return self

    def _apply_run(self, row: Mapping[str, Any]) -> None:
        time_s = float(row["time_s"])
        if row["kind"] in ("finished", "drained", "failed") and self.started_s is not None:
            self.driven_s += time_s - self.started_s
        match row["kind"]:
            case "submitted":
                self.user = row["user"]
                self.created_s = time_s if self.created_s is None else self.created_s
            case "started":
                self._begin(time_s, row)
            case "finished":
                self.state, self.ended_s = "complete", time_s
            case "drained":
                self.state, self.ended_s = "drained", time_s
            case "failed":
                self.state, self.ended_s = "failed", time_s
                self.failed_stage, self.cause = row["failed_stage"], row["cause"]
                self.advice, self.evidence = row.get("advice", ""), row.get("evidence", "")
                self.user_error = bool(row.get("user_error"))
                if self.failed_stage in self.stages:
                    self.stages[self.failed_stage].state = "failed"
            case "note":
                self.notes.append(row["text"])

    def _begin(self, time_s: float, row: Mapping[str, Any]) -> None:
        """A drive begins. What was complete stays so, with the times of when it was made."""
        skipped = set(row.get("skipped", ()))
        for name, stage in self.stages.items():
            if name not in skipped:
                self.stages[name] = StageRow(name, restarts=stage.restarts)
            else:
                stage.state, stage.skipped = "complete", True
        self.created_s = time_s if self.created_s is None else self.created_s
        self.state, self.started_s, self.ended_s = "running", time_s, None
        self.pilot = f"pid {row.get('pid')} on {row.get('host')}"
        self.failed_stage = self.cause = self.advice = self.evidence = ""
        self.user_error, self.notes = False, []


def _apply_stage(stage: StageRow, row: Mapping[str, Any]) -> None:
    time_s = float(row["time_s"])
    match row["kind"]:
        case "started":
            stage.state, stage.ended_s, stage.note = "running", None, ""
            stage.started_s = time_s if stage.started_s is None else stage.started_s
            stage.done, stage.total, stage.progress_since_s = 0, None, None
        case "progress":
            _apply_progress(stage, row, time_s)
        case "note":
            stage.note = row["text"]
            if row["text"] and stage.state == "pending":
                stage.state = "waiting"
        case "checkpoint":
            stage.checkpoint_step = row.get("step")
        case "restarted":
            stage.restarts += 1
            stage.state, stage.note = "restarting", row.get("reason", "")
            stage.progress_since_s = None
        case "drained":
            stage.state, stage.ended_s = "drained", time_s
        case "failed":
            stage.state, stage.ended_s, stage.note = "failed", time_s, row.get("cause", "")
        case "finished":
            stage.ended_s = time_s if stage.state != "complete" else stage.ended_s
            stage.state, stage.note = "complete", ""
            stage.done = stage.total if stage.total is not None else stage.done


def _apply_progress(stage: StageRow, row: Mapping[str, Any], time_s: float) -> None:
    if stage.state != "complete":
        stage.state = "running"
    unit = row.get("unit", "")
    fresh = stage.progress_since_s is None or unit != stage.unit  # inputs are fetched before work begins
    stage.done, stage.total, stage.unit = row["done"], row.get("total"), unit
    if fresh:
        stage.progress_since_s, stage.progress_from = time_s, stage.done
    stage.progress_at_s = time_s
    stage.loss = row.get("loss", stage.loss)
    stage.epoch = row.get("epoch", stage.epoch)
    stage.tokens_per_second = row.get("tokens_per_second", stage.tokens_per_second)
