"""A program on a terminal of its own: what is typed, and what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: A line erased, the cursor moved up by so many rows, other sequences, a character.
_STEPS = re.compile(r"(\x1b\[2K)|\x1b\[(\d+)A|\x1b\[[0-9;?]*[A-Za-z]|([^\x1b])", re.DOTALL)
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """Runs `command` on a pseudo-terminal of `columns` x 24."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], columns: int = 100
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            preexec_fn=_become_session,
            close_fds=True,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0  # characters of `text` that were waited for

    @property
    def text(self) -> str:
        """All that was shown, without what steers the terminal."""
        return _STEERING.sub("", self.raw)

    @property
    def shown(self) -> str:
        """What a screen of any height holds, lines that were erased or written over left out."""
        rows, row, column = [""], 0, 0
        for erased, moved, character in _STEPS.findall(self.raw):
            if erased:
                rows[row] = ""
            elif moved:
                row -= int(moved)
            elif character == "\r":
                column = 0
            elif character == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif character:
                rows[row] = f"{rows[row]:{column}}"[:column] + character + rows[row][column + 1 :]
                column += 1
        return "\n".join(rows)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, wanted: str, timeout_s: float = 120) -> str:
        """Until it shows that, behind what was waited for last; returns what came before it."""
        deadline = time.monotonic() + timeout_s
        while (at := self.text.find(wanted, self._seen)) < 0:
            assert time.monotonic() < deadline, f"no {wanted!r} in:\n{self.text[self._seen :]}"
            assert self._read(0.2), f"ended before {wanted!r}:\n{self.text[self._seen :]}"
        before, self._seen = self.text[self._seen : at], at + len(wanted)
        return before

    def end(self, timeout_s: float = 60) -> int:
        """Until the program ends; returns its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(0.2):
            assert time.monotonic() < deadline, f"still running:\n{self.text[self._seen :]}"
        return self._process.wait(timeout_s)

    def _read(self, wait_s: float) -> bool:
        """False once the program has closed its terminal."""
        if select.select([self._master], [], [], wait_s)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return False
            self.raw += data.decode("utf-8", "replace")
            return bool(data)
        return True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._master)


def _become_session() -> None:
    """A session of its own, led by the terminal on standard input: ^C reaches all its processes."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
