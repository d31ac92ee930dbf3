"""What every stage process has in hand, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifacts.contract import EXIT_DRAINED, EXIT_FAILED, EXIT_USER_ERROR, Plan, StagePlan
from artifacts.download import Progress
from artifacts.events import Events
from artifacts.manifest import local_folder
from artifacts.store import Store


@dataclass(frozen=True)
class StageContext:
    plan: Plan
    run_id: str
    stage: StagePlan
    store: Store
    work: Path  # scratch folder of this stage, on this machine
    events: Events

    def input_folder(self, name: str) -> Path:
        """The folder with the files of the input `name`, as `artifacts.manifest.local_folder`; a fetch from
        a remote store is told to the events."""
        return local_folder(self.store, self.stage.inputs[name], progress=fetch_progress(self.events))


def fetch_progress(events: Events | None) -> Progress | None:
    """Tells the events how far a fetch is."""
    return None if events is None else lambda done, total: events.progress(done, total, "bytes")


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
