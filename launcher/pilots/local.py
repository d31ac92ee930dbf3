"""Pilots on this machine: a process of its own session, one per run.

`launch` forks it off and returns once it drives; it outlives the terminal. The lock on the run's
`pilot.lock` says that somebody drives, and is gone with the process however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from artifacts.contract import Plan, StagePlan
from artifacts.store import Store, open_store
from launcher import record
from launcher.backends.local import LocalBackend, run_folder, tail
from launcher.backends.locks import FileLock, is_held
from launcher.backends.processes import redirect_output
from launcher.errors import EXIT_RUN_FAILED, Problem, RunFailed, SlipwayError, UserError
from launcher.pilots.base import Dashboard, Row
from launcher.run import drive

_DRIVES, _ATTACHED = b"d", b"a"
_LAST_WORDS_LINES = 20


@dataclass(frozen=True)
class LocalPilots:
    """`launcher.pilots.base.Pilots` for this machine. `work`: the profile's folder for logs and locks;
    `cluster`: the profile's name, for messages."""

    cluster: str
    store: Store
    work: Path
    poll_s: float = 0.15

    def require_cluster(self, command: str) -> None:
        what, why = f"{command} on cluster {self.cluster}", "everything runs on this machine"
        way_out = "name a Kubernetes profile with --cluster (`slipway clusters`), or `slipway submit` the job"
        raise UserError(Problem(where="", what=what, why=why, way_out=way_out))

    def require_ready(self) -> None:
        """The store and the work folder can be written."""
        for field, folder in (("store", self.store.local_path("")), ("work", self.work)):
            if folder is None:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                what, why = f"{field} {folder}", f"can't be written: {(error.strerror or str(error)).lower()}"
                way_out = f"name another folder in the profile of cluster {self.cluster}"
                raise UserError(Problem(where="", what=what, why=why, way_out=way_out)) from error

    def stage(self, plan: Plan, run_id: str, say: Callable[[str], None]) -> None:
        """Nothing: the pilot itself is on this machine."""

    def objects(self, plan: Plan, run_id: str, stage: str | None = None) -> list[dict[str, object]]:
        self.require_cluster("render")
        return []

    def launch(self, plan: Plan, run_id: str) -> bool:
        """Raises RunFailed where the pilot died before it could take the lock."""
        if self.is_alive(run_id):
            return False
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _leave_session(lambda: _as_pilot(self.store.uri, run_id, self.work, writer))
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read(1)
        if not answer:
            log = str(_log_path(self.work, run_id))
            raise RunFailed("run", "its pilot did not start", "the end of its log says why", log)
        return answer == _DRIVES

    def drive(self, run_id: str) -> int:
        return pilot(self.store, run_id, self.work)

    def is_alive(self, run_id: str) -> bool:
        return is_held(_lock_path(self.work, run_id))

    def alive_runs(self) -> list[str]:
        return [path.parent.name for path in self.work.glob("runs/*/pilot.lock") if is_held(path)]

    def waiting(self, run_id: str) -> str:
        return ""

    def last_words(self, run_id: str, since_s: float) -> tuple[str, str]:
        log = _log_path(self.work, run_id)
        written = log.exists() and log.stat().st_mtime >= since_s
        return "\n".join(tail(log, _LAST_WORDS_LINES)) if written else "", str(log)

    def logs(self, plan: Plan, run_id: str) -> LocalLogs:
        return LocalLogs(LocalBackend(plan, run_id, self.store, self.work))

    def members(self, plan: Plan, run_id: str) -> list[Row]:
        return []

    def clear(self, run_id: str) -> None:
        """Nothing: processes leave nothing behind but their logs."""

    def dashboard(self, plan: Plan, run_id: str) -> AbstractContextManager[Dashboard]:
        why = "a run on this machine has none"
        way_out = f"`slipway status {run_id} --watch` shows it live, `slipway report {run_id}` its curves"
        raise UserError(Problem(where="", what="dashboard", why=why, way_out=way_out))


@dataclass(frozen=True)
class LocalLogs:
    """Files of the work folder, one per attempt; ranks share it."""

    backend: LocalBackend

    def attempts(self, stage: StagePlan) -> list[str]:
        return [str(path) for path in self.backend.log_files(stage)]

    def lines(self, stage: StagePlan, *, rank: int | None = None, follow: bool = False) -> Iterator[str]:
        if rank is not None:
            why = "on this machine all ranks write one log"
            way_out = f"slipway logs --stage {stage.kind}"
            raise UserError(Problem(where="", what=f"--rank {rank}", why=why, way_out=way_out))
        return self.backend.logs(stage, follow=follow)


def pilot(store: Store, run_id: str, work: Path, answer: Callable[[bool], None] = lambda drives: None) -> int:
    """Drive the run in this process. Returns the exit code; what happened is in the run's events.

    `answer(True)` is called once this process has the run's lock, `answer(False)` if another one has it.
    """
    lock = FileLock(_lock_path(work, run_id))
    if not lock.acquire():
        answer(False)
        return 0
    answer(True)
    plan = record.load_plan(store, run_id)
    try:
        with LocalBackend(plan, run_id, store, work) as backend:
            drive(plan, run_id, store, backend, write_report=lambda: _write_report(store, run_id))
    except SlipwayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        lock.close()
    return 0


def _lock_path(work: Path, run_id: str) -> Path:
    return run_folder(work, run_id) / "pilot.lock"


def _log_path(work: Path, run_id: str) -> Path:
    return run_folder(work, run_id) / "pilot.log"


def _write_report(store: Store, run_id: str) -> None:
    from launcher import report

    report.write(store, run_id)


def _as_pilot(store_uri: str, run_id: str, work: Path, pipe: int) -> int:
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's; `slipway cancel` is the way to stop
        signal.signal(number, signal.SIG_IGN)
    redirect_output(_log_path(work, run_id))

    def answer(drives: bool) -> None:
        os.write(pipe, _DRIVES if drives else _ATTACHED)
        os.close(pipe)

    return pilot(open_store(store_uri), run_id, work, answer)


def _leave_session(function: Callable[[], int]) -> None:
    """Go on as a process that belongs to no terminal and is nobody's child; never returns."""
    code = EXIT_RUN_FAILED
    try:
        os.setsid()
        code = function() if os.fork() == 0 else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
