"""Stages as processes of this machine.

Light stages (data, publish, and models and adapters that are used in place) are forks of the pilot. Where
there is training to do, the others are forked by the stage host, which is started together with the first
stage, so that its imports overlap with the data stage. Where there is none, each runs by itself: it needs but
few of the libraries that training does.

The process that makes an artifact holds the lock of that artifact's key. Host and stages inherit it, so it
stays held while any of them lives, also when the pilot is killed: whoever drives next, for this run or for
another one that needs the same artifact, waits for them and never starts a second process.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from artifacts.contract import EXIT_DONE, Plan, StageKind, StagePlan
from artifacts.events import Events
from artifacts.manifest import MARKER
from artifacts.store import Store
from launcher.backends.locks import FileLock, is_held
from launcher.backends.processes import (
    DirectProcess,
    ForkedProcess,
    HostedProcess,
    StageHost,
    StageProcess,
    become_stage,
)
from launcher.progress.last_words import last_words
from launcher.stages import in_place
from launcher.stages.done import is_done
from launcher.stages.telling import carry_out
from launcher.status import Observation

HOST_COMMAND = (sys.executable, "-P", "-m", "train.host")

#: Between SIGTERM and SIGKILL.
KILL_AFTER_S = 10.0

_LOG_TAIL_LINES = 60
_FOLLOW_POLL_S = 0.2


def is_light(stage: StagePlan) -> bool:
    """Stages that need no libraries beyond the launcher's: forks of the pilot carry them out."""
    return stage.kind in (StageKind.DATA, StageKind.PUBLISH) or in_place.is_taken(stage)


def run_light(stage: StagePlan, store: Store, events: Events, work: Path) -> bool:
    """Carry out a light stage in this process. False: this model has to be downloaded first."""
    if stage.kind == StageKind.DATA:
        from launcher.stages import data_run

        data_run.run(stage, store, events)
        return True
    from launcher.digests import Digests
    from launcher.plan import DIGESTS

    digests = Digests(work / DIGESTS)
    there = in_place.commit(stage, store, digests) is not None
    digests.save()
    return there


@dataclass
class _Started:
    """A stage's newest attempt by this pilot."""

    process: StageProcess
    log: Path
    at_s: float  # Unix time
    oom_kills_before: int
    terminate_at: float | None = None  # monotonic; set by `stop`
    kill_at: float | None = None


class LocalBackend:
    """`launcher.backends.base.Backend` for one run. A context manager: leaving it ends the stage host.

    `work` is the cluster profile's folder for logs and scratch files; locks lie there too.
    """

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        store: Store,
        work: Path,
        *,
        host_command: Sequence[str] | None = None,
        light: Callable[[StagePlan, Store, Events, Path], bool] | None = None,
    ) -> None:
        self._plan, self._run_id, self._store, self._work = plan, run_id, store, work
        self._host_command = HOST_COMMAND if host_command is None else host_command
        self._light = run_light if light is None else light
        self._started: dict[str, _Started] = {}
        self._locks: dict[str, FileLock] = {}
        self._host: StageHost | None = None
        self._host_works = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._host is not None:
            self._host.close()
        for lock in self._locks.values():
            lock.close()

    # The four methods of a backend ----------------------------------------------------------------------

    def start(self, stage: StagePlan) -> None:
        started = self._started.get(stage.key)
        if started is not None and started.process.poll() is None:
            return
        self._started.pop(stage.key, None)
        self._start_host()
        if self._lock(stage).acquire():
            log, at_s, kills = self._next_log(stage), time.time(), oom_kills()
            self._started[stage.key] = _Started(self._process(stage, log), log, at_s, kills)

    def observe(self, stage: StagePlan) -> Observation:
        started = self._started.get(stage.key)
        if started is None:
            lock = self._lock(stage)
            if not lock.acquire():
                return Observation(phase="elsewhere")
            lock.release()
            return Observation(phase="absent", committed=is_done(stage, self._store))
        code = started.process.poll()
        if code is None:
            self._end_overdue(started)
            return Observation(phase="running", evidence=str(started.log))
        self._lock(stage).release()
        if self._host_never_worked(started):
            del self._started[stage.key]
            return Observation(phase="absent")
        cause, advice = last_words(self._store, self._run_id, stage, started.at_s) if code else ("", "")
        return Observation(
            phase="ended",
            exit_code=code,
            committed=is_done(stage, self._store),
            cause=cause,
            advice=advice,
            output="\n".join(tail(started.log, _LOG_TAIL_LINES)),
            oom_kills=max(0, oom_kills() - started.oom_kills_before),
            evidence=str(started.log),
        )

    def logs(self, stage: StagePlan, *, follow: bool = False) -> Iterator[str]:
        paths = self.log_files(stage)
        while not paths and follow and is_held(self._lock_path(stage)):
            time.sleep(_FOLLOW_POLL_S)
            paths = self.log_files(stage)
        if not paths:
            return
        with paths[-1].open(encoding="utf-8", errors="replace") as lines:
            while True:
                held = follow and is_held(self._lock_path(stage))
                yield from _whole_lines(lines)
                if not held:
                    return
                time.sleep(_FOLLOW_POLL_S)

    def stop(self, stage: StagePlan, grace_s: float) -> None:
        started = self._started.get(stage.key)
        if started is not None and started.process.poll() is None:
            started.terminate_at = time.monotonic() + grace_s
            self._end_overdue(started)

    # ------------------------------------------------------------------------------------------------------

    def log_files(self, stage: StagePlan) -> list[Path]:
        """The logs of the stage's attempts, oldest first."""
        return sorted((self._folder / "logs").glob(f"{stage.kind}-*.log"))

    @property
    def _folder(self) -> Path:
        return run_folder(self._work, self._run_id)

    def _next_log(self, stage: StagePlan) -> Path:
        log = self._folder / "logs" / f"{stage.kind}-{len(self.log_files(stage)) + 1:03d}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        return log

    def _lock_path(self, stage: StagePlan) -> Path:
        return self._work / "locks" / f"{stage.kind.folder}-{stage.key}.lock"

    def _lock(self, stage: StagePlan) -> FileLock:
        if stage.key not in self._locks:
            self._locks[stage.key] = FileLock(self._lock_path(stage))
        return self._locks[stage.key]

    def _start_host(self) -> None:
        """Have a stage host, if there is training to do. It inherits the locks of all it may make."""
        if not self._host_works or (self._host is not None and self._host.exit_code is None):
            return
        heavy = [
            stage for stage in self._plan.stages if not is_light(stage) and not is_done(stage, self._store)
        ]
        if any(stage.kind == StageKind.TRAIN for stage in heavy):
            locks = [self._lock(stage).descriptor for stage in heavy]
            self._host = StageHost(self._host_command, self._folder / "logs" / "host.log", locks)

    def _process(self, stage: StagePlan, log: Path) -> StageProcess:
        plan_file = self._folder / "plan.json"
        # A store that was moved since the plan was made is where this run works, not its old place.
        plan_file.write_bytes(dataclasses.replace(self._plan, store=self._store.uri).to_json())
        work = self._folder / stage.kind
        argv = [stage.kind, "--plan", str(plan_file), "--run", self._run_id, "--work", str(work)]
        if is_light(stage):
            return ForkedProcess(lambda: self._run_light(stage, argv), log)
        if self._host is not None and self._host_works:
            return HostedProcess(self._host, argv, log)
        return DirectProcess(argv, log, [self._lock(stage).descriptor])

    def _run_light(self, stage: StagePlan, argv: Sequence[str]) -> int:
        """The body of a light stage's process. For a model that has to be downloaded it goes on as that."""
        if is_done(stage, self._store):
            return EXIT_DONE
        events = Events(self._store, self._run_id, stage.kind)

        def work() -> None:
            if stage.kind == StageKind.PUBLISH:
                from launcher import publishing

                publishing.run(self._plan, self._run_id, self._store, events)
            elif not self._light(stage, self._store, events, self._work):
                self._store.delete(f"{stage.output}/{MARKER}")  # it pointed to where the model no longer lies
                become_stage(argv, self._lock(stage).descriptor)

        return carry_out(work, events)

    def _host_never_worked(self, started: _Started) -> bool:
        """A host that fails before it is ready can't be started here: from then on stages run directly."""
        process, host = started.process, self._host
        if host is None or not isinstance(process, HostedProcess) or not process.lost_with_host:
            return False
        if not host.ready and (host.exit_code or 0) > 0:
            self._host_works = False
        return not self._host_works

    def _end_overdue(self, started: _Started) -> None:
        pid, now = started.process.pid, time.monotonic()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if started.kill_at is None and started.terminate_at is not None and now >= started.terminate_at:
                started.kill_at = now + KILL_AFTER_S
                os.kill(pid, signal.SIGTERM)
            elif started.kill_at is not None and now >= started.kill_at:
                os.kill(pid, signal.SIGKILL)


def run_folder(work: Path, run_id: str) -> Path:
    """Logs, scratch files and the pilot's lock of one run."""
    return work / "runs" / run_id


def oom_kills() -> int:
    """Processes that the kernel has killed on this machine for lack of memory, since it started."""
    with contextlib.suppress(OSError, ValueError), Path("/proc/vmstat").open() as lines:
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def tail(path: Path, count: int) -> list[str]:
    """The last lines of a text file, without reading more than its end."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 400 * count))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
        return list(collections.deque(lines, maxlen=count))
    return []


def _whole_lines(stream: Any) -> Iterator[str]:
    while line := stream.readline():
        yield line.rstrip("\n")
