"""Logs of stages that ran elsewhere, out of the store: they outlive the machines that wrote them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from artifacts.contract import StagePlan
from artifacts.events import events_prefix
from artifacts.logs import LogReader, logs_prefix
from artifacts.segments import SegmentReader
from artifacts.store import Store
from launcher.progress.board import Board

#: What a process that has said its last word may still be carrying to the store.
_LAST_LINES_S = 3.0


@dataclass(frozen=True)
class StoredLogs:
    """`launcher.pilots.base.Logs` of one run. `alive`: whether somebody drives it."""

    store: Store
    run_id: str
    alive: Callable[[], bool]
    poll_s: float
    sleep: Callable[[float], None] = time.sleep

    def attempts(self, stage: StagePlan) -> list[str]:
        prefix = logs_prefix(self.run_id, stage.kind)
        streams = {info.key.removeprefix(f"{prefix}/").split("/")[0] for info in self.store.list(prefix)}
        return [f"{self.store.uri}/{prefix}/{name}" for name in sorted(streams) if "-main-" in name]

    def lines(self, stage: StagePlan, *, rank: int | None = None, follow: bool = False) -> Iterator[str]:
        """With `follow` the next attempt of a restarted stage is read on."""
        source = None if rank is None else f"rank-{rank}"
        reader = LogReader(self.store, self.run_id, stage.kind, source, attempt=-1)
        goes_on = self._goes_on(stage)
        while follow and goes_on():
            yield from reader.poll()
            self.sleep(self.poll_s)
        if follow:
            yield from reader.poll()
            self.sleep(_LAST_LINES_S)
        yield from reader.poll()

    def _goes_on(self, stage: StagePlan) -> Callable[[], bool]:
        """Whether there is more of the stage to come, as far as the run's events say."""
        reader = SegmentReader(self.store, events_prefix(self.run_id))
        board = Board.of([stage.kind])

        def goes_on() -> bool:
            driven = self.alive()  # asked before the look: a pilot that ends has said so by then
            board.apply(reader.poll())
            return driven and board.stages[stage.kind].state not in ("complete", "drained", "failed")

        return goes_on
