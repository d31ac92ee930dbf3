"""The stage host: imports the heavy libraries once, then forks one child per stage.

`python -m train.host` speaks JSON lines. On stdin: `{"id": "1", "argv": ["train", "--plan", …], "log":
"/path/stage.log", "env": {…}}`. On stdout: `{"ready": true}` once everything is imported, `{"id", "pid"}`
when a stage starts and `{"id", "exit"}` when it ends (a negative exit is minus the signal). Requests may come
before `ready`. End of stdin means that the pilot is gone: stages get SIGTERM (a training saves and ends),
then SIGKILL after `GRACE_S`. A stage dies with the host.

The host itself imports nothing and only passes requests on to its nurseries, one per set of libraries:
processes that import the set and then fork. They import side by side, so that a stage that needs few
libraries runs while the others are still being imported. A nursery must stay free of threads: a fork copies
only the calling one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from train.processes import die_with_parent, reset_signals

GRACE_S = 30.0


def _import_light() -> None:
    """What `prepare` and a twin need: no torch."""
    import train.__main__
    import train.prepare
    import train.twin  # noqa: F401


def _import_heavy() -> None:
    import train.__main__  # noqa: F401
    from train.preload import preload

    preload()


NURSERIES: dict[str, Callable[[], None]] = {"light": _import_light, "heavy": _import_heavy}
LIGHT_STAGES = frozenset({"model", "prepare"})

# Threads that libraries would start on import: OpenBLAS's pool (numpy) and jemalloc's purging (pyarrow).
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the pilot's to handle
    nurseries: dict[str, _Handle] = {}
    for name in NURSERIES:
        nurseries[name] = _start_nursery(name, nurseries)
    ending = _route(nurseries)
    for handle in nurseries.values():
        os.close(handle.requests)
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle.pid, signal.SIGTERM)  # for the one still importing; others see the pipe's end
    for handle in nurseries.values():
        os.waitpid(handle.pid, 0)
    return ending


class _Handle(NamedTuple):
    pid: int
    pidfd: int
    requests: int  # the pipe's writing end


def _start_nursery(name: str, others: dict[str, _Handle]) -> _Handle:
    reader, writer = os.pipe()
    host = os.getpid()
    pid = os.fork()
    if pid == 0:
        for descriptor in (writer, *(handle.requests for handle in others.values())):
            os.close(descriptor)
        _leave(lambda: Nursery(name, reader, host).run())
    os.close(reader)
    return _Handle(pid, os.pidfd_open(pid), writer)


def _route(nurseries: dict[str, _Handle]) -> int:
    """Hand each request line to its nursery until stdin ends (returns 0) or a nursery dies (1)."""
    stdin = sys.stdin.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_READ)
        for handle in nurseries.values():
            selector.register(handle.pidfd, selectors.EVENT_READ)
        lines = _Lines(stdin)
        while all(key.fd == stdin for key, _ in selector.select()):
            for line in lines.read():
                stage = json.loads(line)["argv"][0]
                os.write(nurseries["light" if stage in LIGHT_STAGES else "heavy"].requests, line + b"\n")
            if lines.ended:
                return 0
    return 1


class _Lines:
    """Whole lines of a descriptor, without a buffer that a selector can't see into."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.ended, self._rest = descriptor, False, b""

    def read(self) -> list[bytes]:
        data = os.read(self.descriptor, 65536)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line for line in lines if line]


class Nursery:
    """A process that imports one set of libraries and forks the stages that need no more than these."""

    def __init__(self, name: str, requests: int, host: int) -> None:
        self.name, self.requests, self.host, self.pid = name, requests, host, os.getpid()
        self.children: dict[int, tuple[str, int]] = {}  # pidfd -> request id, pid

    def run(self) -> int:
        die_with_parent(self.host)
        os.environ.update(_NO_THREADS)
        NURSERIES[self.name]()
        gc.freeze()  # keeps the pages of what is imported shared with the children
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.name == "heavy":
            _say(ready=True)
        lines = _Lines(self.requests)
        with selectors.DefaultSelector() as selector:
            selector.register(self.requests, selectors.EVENT_READ)
            while not lines.ended:
                for key, _ in selector.select():
                    if key.fd == self.requests:
                        for line in lines.read():
                            selector.register(self._start(json.loads(line)), selectors.EVENT_READ)
                    else:
                        selector.unregister(key.fd)
                        self._reap(key.fd)
        self._end_children()
        return 0

    def _start(self, request: dict[str, Any]) -> int:
        """Fork the stage; returns its pidfd, readable once it has ended."""
        pid = os.fork()
        if pid == 0:
            _leave(lambda: _run_stage(request, self.pid))
        _say(id=request["id"], pid=pid)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (request["id"], pid)
        return pidfd

    def _reap(self, pidfd: int) -> None:
        request_id, pid = self.children.pop(pidfd)
        os.close(pidfd)
        _say(id=request_id, exit=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _end_children(self) -> None:
        for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 5.0)):
            for _, pid in self.children.values():
                os.kill(pid, number)
            deadline = time.monotonic() + wait_s
            with selectors.DefaultSelector() as selector:
                for pidfd in self.children:
                    selector.register(pidfd, selectors.EVENT_READ)
                while self.children and (left := deadline - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        selector.unregister(key.fd)
                        self._reap(key.fd)


def _run_stage(request: dict[str, Any], parent: int) -> int:
    os.setsid()  # a group of its own: signals of the terminal are the pilot's to handle
    die_with_parent(parent)
    reset_signals()
    Path(request["log"]).parent.mkdir(parents=True, exist_ok=True)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor, replacement in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(replacement, descriptor)
    os.environ.update(request.get("env", {}))
    from train.__main__ import main as run_stage

    return run_stage(request["argv"])


def _leave(function: Callable[[], int]) -> NoReturn:
    """Run `function` as the whole of this forked process. Ends without the parent's exit handlers."""
    code = 1
    try:
        code = function()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _say(**message: Any) -> None:
    """One line on stdout. A single write: the nurseries share the pipe (lines are below PIPE_BUF)."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
