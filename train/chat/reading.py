"""Where questions come from: a terminal with line editing, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

PROMPT = ">>> "
_MORE = "... "
_LEAVING = "(^C again, ^D or /quit leaves)"


def typed_lines(show: Callable[[str], None], read: Callable[[str], str] = input) -> Iterator[str]:
    """Each text that is typed, until ^D, or ^C twice at the prompt. A line that ends in a backslash goes on
    in the next; a paste of several lines is one text."""
    interrupts = 0
    while True:
        try:
            text = "\n".join(_joined_lines(read))
        except EOFError:
            show("")
            return
        except KeyboardInterrupt:
            interrupts += 1
            show("" if interrupts > 1 else f"\n{_LEAVING}")
            if interrupts > 1:
                return
            continue
        interrupts = 0
        yield text


def _joined_lines(read: Callable[[str], str]) -> Iterator[str]:
    prompt = PROMPT
    while (line := read(prompt)).endswith("\\"):
        yield line[:-1]
        prompt = _MORE
    yield line


def piped_lines() -> Iterator[str]:
    """Each line of standard input."""
    for line in sys.stdin:
        yield line.rstrip("\n")


def edit_lines() -> None:
    """Arrow keys, history and pastes of several lines for `input`, where Python was built with readline."""
    try:
        import readline
    except ImportError:
        return
    readline.parse_and_bind("set enable-bracketed-paste on")
    readline.parse_and_bind("set editing-mode emacs")
