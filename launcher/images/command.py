"""Runs a builder's command: its output streams, its end is told in plain words."""

from __future__ import annotations

import shlex
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.errors import ClusterError
from launcher.images.failures import reason_of

#: Lines that a failure shows, and lines that are searched for its reason.
SHOWN_LINES, SEARCHED_LINES = 15, 200

Say = Callable[[str], None]


def run(command: Sequence[str], log: Path, say: Say, what: str) -> None:
    """Run to its end; every line goes to `say` and is appended to `log`.

    Raises ClusterError with the last lines and, where it is known, the reason of a failure; also where the
    builder is not installed.
    """
    tail: deque[str] = deque(maxlen=SEARCHED_LINES)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as copy:
        print(f"$ {shlex.join(command)}", file=copy, flush=True)
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise _not_started(command[0], error) from error
        with process:
            try:
                for raw in process.stdout or ():
                    line = raw.decode("utf-8", errors="replace").rstrip()
                    print(line, file=copy, flush=True)
                    tail.append(line)
                    say(line)
            except BaseException:  # ^C: the builder must not go on alone
                process.terminate()
                raise
    if process.returncode:
        raise _failed(command[0], what, process.returncode, list(tail), log)


def _not_started(builder: str, error: OSError) -> ClusterError:
    way_out = (
        "install it, or name another one as image.builder (docker, podman, buildah; none: a given image)"
    )
    if isinstance(error, FileNotFoundError):
        return ClusterError(builder, "it is not installed here", way_out)
    return ClusterError(builder, f"it can't be started: {error.strerror or error}", way_out)


def _failed(builder: str, what: str, code: int, lines: list[str], log: Path) -> ClusterError:
    reason = reason_of(lines, builder)
    shown = "".join(f"\n  | {line}" for line in lines[-SHOWN_LINES:])
    why = reason.why if reason else f"{builder} ended with exit code {code}"
    return ClusterError(what, why, f"{reason.way_out if reason else 'see its output'}\n  log: {log}{shown}")
