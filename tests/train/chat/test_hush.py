"""What libraries print, kept off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from train.chat.hush import hushed, quietly

ROOT = Path(__file__).parents[3]
#: Noise as Python, an extension and a child process make it.
NOISE = """
import os, subprocess, sys
from train.chat.hush import hushed, quietly

def noise(text):
    print(text, end=" ")
    print(text, file=sys.stderr)
    os.write(1, text.encode())
    subprocess.run(["echo", text])

def items():
    for number in range(2):
        noise("computing")
        yield number

print("here")
with hushed():
    noise("loading")
for number in quietly(items()):
    print(number)
try:
    with hushed():
        raise ValueError
except ValueError:
    print("there")
"""


def printed(**environment: str) -> tuple[str, str]:
    """What the program above prints, on standard output and error."""
    command = [sys.executable, "-c", NOISE]
    ended = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True
    )
    return ended.stdout, ended.stderr


def test_nothing_is_seen_of_it() -> None:
    assert printed(PATH="/bin:/usr/bin") == ("here\n0\n1\nthere\n", "")


def test_everything_is_shown_on_request() -> None:
    output, errors = printed(PATH="/bin:/usr/bin", SLIPWAY_DEBUG="1")
    assert output.count("computing") == 2 * 3
    assert errors.count("loading") == 1


def test_closing_closes() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    stream = quietly(items())
    assert next(stream) == 1
    stream.close()
    assert closed


def test_errors_pass() -> None:
    with pytest.raises(KeyboardInterrupt), hushed():
        raise KeyboardInterrupt
