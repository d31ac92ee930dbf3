"""What every stage process has in hand, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.contract import EXIT_DRAINED, EXIT_FAILED, EXIT_USER_ERROR, Plan, StagePlan
from artifacts.events import Events
from artifacts.store import Store


@dataclass(frozen=True)
class StageContext:
    plan: Plan
    run_id: str
    stage: StagePlan
    store: Store
    work: Path  # scratch folder of this stage, on this machine
    events: Events


class StageError(Exception):
    """The stage failed: a cause in one line and what to do about it."""

    exit_code = EXIT_FAILED

    def __init__(self, cause: str, advice: str = "") -> None:
        self.cause, self.advice = cause, advice
        super().__init__(f"{cause}; {advice}" if advice else cause)


class StageUserError(StageError):
    """The user's input is at fault (a data record, a model folder, a combination only seen now)."""

    exit_code = EXIT_USER_ERROR


class Drained(StageError):  # noqa: N818 - an ending, not a mistake
    """Stopped on request after a checkpoint was saved."""

    exit_code = EXIT_DRAINED
