"""The processes that serve a model: `python -m train.serve`, or vLLM with our page beside it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from artifacts.contract import Source
from launcher.backends.processes import die_with_parent, environment
from launcher.errors import Problem, RunFailed, UserError
from launcher.serving.engines import EngineName, vllm_command, vllm_environment
from launcher.spec.words import listed
from launcher.talking import require_libraries

API_KEY = "SLIPWAY_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PACKAGES = ("fastapi", "uvicorn", "nicegui")
_POLL_S = 0.5


@dataclass(frozen=True)
class Served:
    """What answers now. `page`: where people chat, if anywhere."""

    model: str
    api: str
    page: str | None
    details: str  # of the model, for people; "" where the engine tells none


def require_packages(engine: EngineName, source: Source) -> None:
    """Raises UserError where the environment lacks what the server needs."""
    if engine != "vllm":
        require_libraries(source)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} not in {sys.prefix}"
        raise UserError(
            Problem(where="", what="slipway serve", why=why, way_out="`make setup-serve` installs it all")
        )


class Servers:
    """Started by `start`, ended with the `with` block. SIGTERM to this process is handed on to them."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._ending = False

    def __enter__(self) -> Servers:
        signal.signal(signal.SIGTERM, self._end)
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        for process in self._processes:
            with _deaf_to_interrupts():
                process.wait()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def start(self, engine: EngineName, source: Source, *, host: str, port: int, page: bool) -> Served:
        """Returns once the model answers. Raises UserError, RunFailed where it does not come to that."""
        require_packages(engine, source)
        if engine == "vllm":
            return self._start_vllm(source, host=host, port=port, page=page)
        told = self._start_own([f"--source={source.to_json()}"], host, port, page)
        url, details = told["url"], f"{told['description']}, {told['context_length']} tokens of context"
        return Served(source.name, f"{url}/v1", url if page else None, details)

    def wait(self) -> None:
        """Until ^C, or until one of them ends. Raises RunFailed where that was not asked for."""
        while all(process.poll() is None for process in self._processes):
            time.sleep(_POLL_S)
        ended = next(process for process in self._processes if process.poll() is not None)
        if ended.returncode != 0 and not self._ending:
            raise _failed(ended)

    def _start_own(self, what: Sequence[str], host: str, port: int, page: bool) -> dict[str, str]:
        command = [sys.executable, "-P", "-m", "train.serve", *what, f"--host={host}", f"--port={port}"]
        process = self._spawn(
            [*command, *([] if page else ["--no-page"])], environment(), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        told: dict[str, str] = json.loads(process.stdout.readline() or "{}")
        if "error" in told:
            raise UserError(Problem(where="", what="slipway serve", why=told["error"]))
        if not told:
            process.wait()
            raise _failed(process)
        return told

    def _start_vllm(self, source: Source, *, host: str, port: int, page: bool) -> Served:
        if port == 0:
            why = "vLLM, and the page beside it, need ports that are known"
            raise UserError(Problem(where="", what="--port 0", why=why, way_out="name one"))
        key = os.environ.get(API_KEY)
        process = self._spawn(
            vllm_command(source, host=host, port=port), vllm_environment(environment(), key)
        )
        api = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        while not _is_healthy(f"{api}/health"):
            if process.poll() is not None:
                raise _failed(process)
            time.sleep(_POLL_S)
        if not page:
            return Served(source.name, f"{api}/v1", None, "vLLM")
        upstream = [f"--upstream={api}", f"--model={source.name}"]
        url = self._start_own(upstream, host, port + 1, True)["url"]
        return Served(source.name, f"{api}/v1", url, "vLLM")

    def _spawn(
        self, command: Sequence[str], variables: dict[str, str], *, stdout: int | None = None
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            env=variables,
            text=True,
            preexec_fn=die_with_parent,
        )
        self._processes.append(process)
        return process

    def _end(self, number: int = 0, frame: FrameType | None = None) -> None:
        self._ending = True
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """The children got the ^C too, and end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_healthy(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_POLL_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _failed(process: subprocess.Popen[str]) -> RunFailed:
    """A server that ended by itself; it has said why on this terminal."""
    why = f"the server ended with exit code {process.returncode}"
    return RunFailed("serve", why, "what it said stands above", "this terminal")
