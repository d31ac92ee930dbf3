"""The one seam between what a stage is and where it runs. Four methods, no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from artifacts.contract import StagePlan
from launcher.status import Observation

__all__ = ["Backend", "Observation"]


class Backend(Protocol):
    """Where stages of one run are carried out."""

    def start(self, stage: StagePlan) -> None:
        """Start the stage's process and return. Idempotent: while one makes the same artifact, for this run
        or for another, none is started."""
        ...

    def observe(self, stage: StagePlan) -> Observation:
        """Raw facts, without waiting."""
        ...

    def logs(self, stage: StagePlan, *, follow: bool = False) -> Iterator[str]:
        """Lines of the stage's newest attempt; with `follow` until it has ended."""
        ...

    def stop(self, stage: StagePlan, grace_s: float) -> None:
        """Return at once; the stage has `grace_s` to end by itself (the run's stop request is up), then it
        is terminated. Stages that are not running are left alone."""
        ...
