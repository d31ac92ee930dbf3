"""Who drives a run on this machine: the pilot, a process of its own session, one per run.

`launch` forks it off and returns once it drives; it outlives the terminal. The lock on the run's
`driver.lock` says that somebody drives, and is gone with the process however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from artifacts.store import Store, open_store
from launcher import record
from launcher.backends.local import LocalBackend, run_folder
from launcher.backends.locks import FileLock, is_held
from launcher.backends.processes import redirect_output
from launcher.errors import EXIT_RUN_FAILED, RunFailed, SlipwayError
from launcher.run import drive

_DRIVES, _ATTACHED = b"d", b"a"


def lock_path(work: Path, run_id: str) -> Path:
    return run_folder(work, run_id) / "driver.lock"


def is_alive(work: Path, run_id: str) -> bool:
    """Whether a process of this machine drives the run now."""
    return is_held(lock_path(work, run_id))


def alive_runs(work: Path) -> list[str]:
    return [path.parent.name for path in work.glob("runs/*/driver.lock") if is_held(path)]


def launch(store: Store, run_id: str, work: Path) -> bool:
    """Have the run driven by a process that outlives this one. False: there was one already.

    Raises RunFailed where the pilot died before it could take the lock.
    """
    if is_alive(work, run_id):
        return False
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _leave_session(lambda: _as_pilot(store.uri, run_id, work, writer))
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read(1)
    if not answer:
        log = run_folder(work, run_id) / "driver.log"
        raise RunFailed("run", "its driver did not start", "the end of its log says why", str(log))
    return answer == _DRIVES


def pilot(store: Store, run_id: str, work: Path, answer: Callable[[bool], None] = lambda drives: None) -> int:
    """Drive the run in this process. Returns the exit code; what happened is in the run's events.

    `answer(True)` is called once this process has the run's lock, `answer(False)` if another one has it.
    """
    lock = FileLock(lock_path(work, run_id))
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


def _write_report(store: Store, run_id: str) -> None:
    from launcher import report

    report.write(store, run_id)


def _as_pilot(store_uri: str, run_id: str, work: Path, pipe: int) -> int:
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's; `slipway cancel` is the way to stop
        signal.signal(number, signal.SIG_IGN)
    redirect_output(run_folder(work, run_id) / "driver.log")

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
