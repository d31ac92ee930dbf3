"""Stage processes on this machine: forked from the stage host, from the pilot itself, or run directly.

They run with `python -P`, which keeps a `train` folder of the working directory from being taken for ours.
All three are asked in the same way: `poll()` is None while the process runs, then its exit code (-N: killed
by signal N).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import launcher

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

#: The folder that holds the packages launcher, artifacts and train.
PROJECT_ROOT = Path(launcher.__file__).resolve().parent.parent


#: What carries out one stage by itself; arguments follow.
STAGE_COMMAND = (sys.executable, "-P", "-m", "train")


class StageProcess(Protocol):
    @property
    def pid(self) -> int | None:
        """None until the process has begun."""
        ...

    def poll(self) -> int | None: ...


def environment() -> dict[str, str]:
    """The environment of stage processes: this one's, with this project's packages found first."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{path}" if path else str(PROJECT_ROOT)}


class ForkedProcess:
    """A light stage: a function of the launcher in a fork of the pilot. It dies with the pilot."""

    def __init__(self, function: Callable[[], int], log: Path) -> None:
        pilot = os.getpid()
        self.pid = os.fork()
        self._exit_code: int | None = None
        if self.pid == 0:
            run_as_process(function, log, parent=pilot)

    def poll(self) -> int | None:
        if self._exit_code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._exit_code = os.waitstatus_to_exitcode(status) if done else None
        return self._exit_code


def run_as_process(function: Callable[[], int], log: Path, parent: int) -> None:
    """Run `function` as the rest of this process, forked from `parent`, writing to `log`; never returns."""
    code = 1
    try:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        redirect_output(log)
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class DirectProcess:
    """`python -m train STAGE …` as a process of its own. Told to end (SIGTERM) when the pilot dies."""

    def __init__(self, argv: Sequence[str], log: Path, keep_open: Sequence[int]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*STAGE_COMMAND, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                pass_fds=keep_open,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()


def become_stage(argv: Sequence[str], keep_open: int) -> NoReturn:
    """Turn this process into `python -m train STAGE …`."""
    os.set_inheritable(keep_open, True)
    os.execve(sys.executable, [*STAGE_COMMAND, *argv], environment())


class HostedProcess:
    """A stage that the stage host forks on request."""

    def __init__(self, host: StageHost, argv: Sequence[str], log: Path) -> None:
        self._host = host
        self._id = host.request(argv, log)

    @property
    def pid(self) -> int | None:
        return self._host.pids.get(self._id)

    @property
    def lost_with_host(self) -> bool:
        """The host ended before this stage did."""
        self._host.poll()
        return self._id not in self._host.exit_codes and self._host.exit_code is not None

    def poll(self) -> int | None:
        if self.lost_with_host:
            return -signal.SIGKILL  # what the kernel sends to the stages of a host that died
        return self._host.exit_codes.get(self._id)


class StageHost:
    """The pilot's end of `python -m train.host`: JSON lines over pipes (see there for the protocol).

    `keep_open` are descriptors that the host and every stage inherit: the locks of the artifacts they make.
    When the pilot dies, its end of the pipe closes, and the host stops its stages and ends.
    """

    def __init__(self, command: Sequence[str], log: Path, keep_open: Sequence[int]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment(),
                pass_fds=keep_open,
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._messages = self._process.stdin, self._process.stdout
        os.set_blocking(self._messages.fileno(), False)
        self._rest = b""
        self._count = 0
        self.ready = False
        self.pids: dict[str, int] = {}
        self.exit_codes: dict[str, int] = {}

    @property
    def exit_code(self) -> int | None:
        """The host's own: None while it lives. Its stages die with it."""
        return self._process.poll()

    def request(self, argv: Sequence[str], log: Path) -> str:
        """Ask for a stage; returns the request's id. A host that is gone shows in `exit_code`."""
        self._count += 1
        request = {"id": str(self._count), "argv": list(argv), "log": str(log)}
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        return str(self._count)

    def poll(self) -> None:
        """Take in what the host has said since the last look."""
        while block := self._messages.read(65536):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for message in filter(None, map(_message, lines)):
                if "pid" in message:
                    self.pids[message["id"]] = message["pid"]
                elif "exit" in message:
                    self.exit_codes[message["id"]] = message["exit"]
                self.ready = self.ready or message.get("ready", False)

    def close(self) -> None:
        """End the host. Stages that still run get its grace period; an idle one is gone at once."""
        self.poll()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        if len(self.exit_codes) == self._count:
            self._process.kill()
        self._process.wait()
        self._messages.close()


def _message(line: bytes) -> dict[str, Any] | None:
    """One message of the host; None for a line that a library printed."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send `number` to this process when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def redirect_output(log: Path) -> None:
    """Send this process's standard output and error to the end of `log`, its input from nowhere."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, replacement in ((0, nothing), (1, output), (2, output)):
        os.dup2(replacement, descriptor)
    os.close(output)
    os.close(nothing)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
