"""The seam between the commands and whoever drives a run: the pilot, one per run.

Here a pilot is a process of this machine (`launcher.pilots.local`); on a cluster it is a small Job
(`launcher.pilots.kubernetes`). Commands ask it what they need and know nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from artifacts.contract import Plan, StagePlan

#: One row of what carries a run out just now, in the vendor's words: heading -> value.
Row = dict[str, str]


class Logs(Protocol):
    """What the stages of one run have written."""

    def attempts(self, stage: StagePlan) -> list[str]:
        """Where the log of each attempt lies, oldest first."""
        ...

    def lines(self, stage: StagePlan, *, rank: int | None = None, follow: bool = False) -> Iterator[str]:
        """Lines of the stage's newest attempt; with `follow` until the stage has ended. `rank`: of one rank
        of the training alone. Raises UserError where ranks have no logs of their own."""
        ...


class Pilots(Protocol):
    """Who drives the runs of one cluster profile.

    Where there is a cluster, every method raises ClusterError where it can't be reached or refuses.
    """

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at a run that goes on."""
        ...

    def require_cluster(self, command: str) -> None:
        """Raises UserError where `command` has no meaning, since runs stay on this machine."""
        ...

    def require_ready(self) -> None:
        """Raises UserError or ClusterError where a run could not be started here. Makes nothing."""
        ...

    def stage(self, plan: Plan, run_id: str, say: Callable[[str], None]) -> None:
        """Bring to the cluster what only this machine has, as far as it is not there. The run is on record,
        and its events tell of the stages; `say` gets the lines of programs that work on them."""
        ...

    def objects(self, plan: Plan, run_id: str, stage: str | None = None) -> list[dict[str, object]]:
        """What `launch` makes, or what carries out one stage, as the vendor writes it. Raises UserError where
        something that belongs into it is not staged."""
        ...

    def launch(self, plan: Plan, run_id: str) -> bool:
        """Have the run driven by somebody who outlives this process. False: somebody did already."""
        ...

    def drive(self, run_id: str) -> int:
        """Drive the run in this process. Returns the exit code."""
        ...

    def is_alive(self, run_id: str) -> bool:
        """Whether somebody drives the run now."""
        ...

    def alive_runs(self) -> list[str]: ...

    def waiting(self, run_id: str) -> str:
        """Why the pilot has not begun to drive, in one line; empty where nothing is known to hold it up."""
        ...

    def last_words(self, run_id: str, since_s: float) -> tuple[str, str]:
        """What the pilot itself wrote since the Unix time `since_s`, and where that lies."""
        ...

    def logs(self, plan: Plan, run_id: str) -> Logs: ...

    def members(self, plan: Plan, run_id: str) -> list[Row]:
        """What carries the run out just now; empty where the board says all there is."""
        ...

    def clear(self, run_id: str) -> None:
        """Remove what was started for a run that nobody drives; its artifacts and record stay."""
        ...

    def dashboard(self, plan: Plan, run_id: str) -> AbstractContextManager[Dashboard]:
        """The dashboard of what runs, reachable from this machine while the block lasts. Raises UserError
        where there is none, saying what to use instead."""
        ...


class Dashboard(Protocol):
    url: str

    def wait(self, over: Callable[[], bool]) -> None:
        """Serve until `over` says so. KeyboardInterrupt passes through."""
        ...
