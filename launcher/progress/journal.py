"""What the pilot itself says in a run's events: the run's own rows (stage `run`) and some of each stage's.

Rows of stage `run`: `submitted` (user, host: who asks for a drive, and where), `started` (pid, host, skipped:
kinds of stages that were complete already), then one of `finished`, `drained`, `failed` (failed_stage, cause,
advice, evidence, user_error).
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Sequence

from artifacts.contract import StagePlan
from artifacts.events import EventKind, Events
from artifacts.store import Store
from launcher.status import Fail, Retry

RUN = "run"


def local_user() -> str:
    """Name of the user of this process; empty where it has none, as in many a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


class Journal:
    """One pilot's writer of events. Every row is durable when its method returns."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._events = {RUN: Events(store, run_id, RUN)}

    def submitted(self) -> None:
        """The user of this process asks for a drive."""
        self._say(RUN, "submitted", user=local_user(), host=platform.node())

    def started(self, skipped: Sequence[StagePlan]) -> None:
        self._say(
            RUN,
            "started",
            pid=os.getpid(),
            host=platform.node(),
            skipped=[str(stage.kind) for stage in skipped],
        )

    def waiting(self, stage: StagePlan) -> None:
        self._say(stage.kind, "note", text="another process is making this artifact: waiting for it")

    def made_elsewhere(self, stage: StagePlan) -> None:
        self._say(stage.kind, "finished", elsewhere=True)

    def restarting(self, stage: StagePlan, retry: Retry) -> None:
        self._say(stage.kind, "restarted", reason=retry.reason, delay_s=retry.delay_s)

    def failed(self, stage: StagePlan, failure: Fail, evidence: str) -> None:
        self._say(
            RUN,
            "failed",
            failed_stage=str(stage.kind),
            cause=failure.reason,
            advice=failure.advice,
            evidence=evidence,
            user_error=failure.user_error,
        )

    def drained(self) -> None:
        self._say(RUN, "drained")

    def note(self, text: str, stage: StagePlan | None = None) -> None:
        """Of a stage, or of the run. An empty one takes back the stage's last."""
        self._say(stage.kind if stage else RUN, "note", text=text)

    def finished(self) -> None:
        self._say(RUN, "finished")

    def _say(self, stage: str, kind: EventKind, **facts: object) -> None:
        if stage not in self._events:
            self._events[stage] = Events(self._store, self._run_id, stage)
        self._events[stage].say(kind, **facts)
