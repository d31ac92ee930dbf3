"""How far a run is, in one line on the pilot's Job: `kubectl get job -o yaml` tells it without Slipway."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from artifacts.events import events_prefix
from artifacts.segments import SegmentReader
from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.progress.board import Board, StageRow
from launcher.progress.live import amount, duration

ANNOTATION = "slipway/progress"
EVERY_S = 5.0


def progress_line(board: Board) -> str:
    """`train 40/100 steps, loss 1.2345, 310 tokens/s, ETA 3:07` of the stages that have begun and not ended,
    else how the run stands."""
    busy = [stage for stage in board.stages.values() if stage.state in ("running", "waiting", "restarting")]
    if board.state != "running" or not busy:
        done = sum(stage.state == "complete" for stage in board.stages.values())
        cause = f": {board.failed_stage}: {board.cause}" if board.state == "failed" else ""
        return f"{board.state}, {done} of {len(board.stages)} stages complete{cause}"
    return "; ".join(_stage_line(stage) for stage in busy)


def _stage_line(stage: StageRow) -> str:
    parts = [stage.name if stage.state == "running" else f"{stage.name} {stage.state}"]
    if stage.state == "running" and stage.total:
        unit = "" if stage.unit == "bytes" else f" {stage.unit}"
        parts[0] += f" {amount(stage.done, stage.unit)}/{amount(stage.total, stage.unit)}{unit}"
    if stage.loss is not None:
        parts.append(f"loss {stage.loss:.4f}")
    if stage.tokens_per_second is not None:
        parts.append(f"{stage.tokens_per_second:,.0f} tokens/s")
    if stage.restarts:
        parts.append(f"restarted {stage.restarts} ×")
    if (left_s := stage.eta_s()) is not None:
        parts.append(f"ETA {duration(left_s)}")
    if stage.note:
        parts.append(stage.note.splitlines()[0])
    return ", ".join(parts)


class ProgressTeller:
    """Tells `tell` the run's line whenever it has changed, at most every `EVERY_S`, from a thread.

    A context manager: leaving it tells the last line.
    """

    def __init__(
        self, store: Store, run_id: str, stages: Sequence[str], tell: Callable[[str], object]
    ) -> None:
        self._reader = SegmentReader(store, events_prefix(run_id))
        self._board, self._tell, self._told = Board.of(stages), tell, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressTeller:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(ClusterError, OSError):  # whoever watches sees the next one
            self._board.apply(self._reader.poll())
            line = progress_line(self._board)
            if line != self._told:
                self._tell(line)
                self._told = line
