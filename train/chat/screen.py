"""Answers as they are made, on a terminal or plainly through a pipe. What a model writes steers no
terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from artifacts.terminal import harmless
from train.chat.columns import SideBySide, column_width
from train.talk.engine import Piece

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_DRAW_EVERY_S = 1 / 15
_TAB_CELLS = 4


class Answer(NamedTuple):
    """`text` as the model wrote it; `remark`: how it went, for people."""

    text: str
    remark: str
    stopped: bool = False  # by ^C


class Screen(Protocol):
    """Shows what models answer, as it comes."""

    def note(self, text: str) -> None:
        """Something beside the conversation."""

    def show(self, names: Sequence[str], streams: Sequence[Iterator[Piece]]) -> list[Answer]:
        """The answers of one model, or of two. ^C ends them as they are. Raises PromptError."""


class Timed:
    """The pieces of one stream, put together and timed."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._began = time.monotonic()
        self._first = self._last = self._began
        self._piece = Piece(text="", tokens=0)
        self.text = ""

    def __iter__(self) -> Iterator[str]:
        """The text of each piece."""
        for piece in self._pieces:
            self._last = time.monotonic()
            if not self._piece.tokens:
                self._first = self._last
            self._piece = piece
            self.text += piece.text
            yield piece.text

    def answer(self, *, stopped: bool) -> Answer:
        return Answer(self.text, self._remark(stopped), stopped)

    def _remark(self, stopped: bool) -> str:
        tokens, spent = self._piece.tokens, self._last - self._first
        parts = [f"{tokens:,} tokens" if tokens != 1 else "1 token"]
        if tokens > 1 and spent > 0:
            parts.append(f"{(tokens - 1) / spent:.1f} tokens/s")
        if tokens:
            parts.append(f"the first after {self._first - self._began:.1f} s")
        if self._piece.finish_reason == "length":
            parts.append("cut off: --max-new-tokens, or the context is full")
        return ", ".join([*parts, "stopped"] if stopped else parts)


def _shown(text: str) -> str:
    return harmless(text.expandtabs(_TAB_CELLS))


class PlainScreen:
    """Answers alone on standard output, each ending its line; the rest on standard error. A pipe gets each
    answer as the model wrote it."""

    def __init__(self) -> None:
        self._is_seen = sys.stdout.isatty()

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, names: Sequence[str], streams: Sequence[Iterator[Piece]]) -> list[Answer]:
        answers = []
        for name, stream in zip(names, streams, strict=True):
            timed = Timed(stream)
            if len(streams) > 1:
                print(f"{name}: ", end="", flush=True)
            for text in timed:
                print(_shown(text) if self._is_seen else text, end="", flush=True)
            print(flush=True)
            answers.append(timed.answer(stopped=False))
        return answers


class TerminalScreen:
    """One answer as it comes; two in columns, or one under the other where the terminal is narrow."""

    def __init__(self) -> None:
        colours = not os.environ.get("NO_COLOR")
        self._dim, self._plain = (_DIM, _PLAIN) if colours else ("", "")

    def note(self, text: str) -> None:
        for line in text.split("\n"):
            print(f"{self._dim}{line}{self._plain}" if line else "", flush=True)

    def show(self, names: Sequence[str], streams: Sequence[Iterator[Piece]]) -> list[Answer]:
        width = column_width(shutil.get_terminal_size().columns) if len(streams) == 2 else None
        if width is not None:
            return self._show_columns(names, streams, width)
        answers: list[Answer] = []
        for name, stream in zip(names, streams, strict=True):
            if len(streams) > 1:
                self.note(f"{name}:")
            answers.append(self._show_one(stream))
            if answers[-1].stopped:  # the others are not wanted either
                return answers + [Answer("", "", stopped=True)] * (len(streams) - len(answers))
        return answers

    def _show_one(self, stream: Iterator[Piece]) -> Answer:
        timed, stopped = Timed(stream), False
        try:
            for text in timed:
                print(_shown(text), end="", flush=True)
        except KeyboardInterrupt:
            stopped = True
        answer = timed.answer(stopped=stopped)
        print()
        self.note(answer.remark)
        return answer

    def _show_columns(
        self, names: Sequence[str], streams: Sequence[Iterator[Piece]], width: int
    ) -> list[Answer]:
        columns = SideBySide(width)
        timed, stopped = [Timed(stream) for stream in streams], False
        for column, name in enumerate(names):
            columns.add(column, f"{name}\n")
        with _Drawing(columns) as drawing:
            try:
                for column, text in in_turns(timed):
                    if text is None:
                        columns.end(column)
                    else:
                        columns.add(column, _shown(text))
                    drawing.draw()
            except KeyboardInterrupt:
                stopped = True
            for column in range(len(streams)):
                columns.end(column)
        answers = [each.answer(stopped=stopped) for each in timed]
        self.note("\n".join(f"{name}: {each.remark}" for name, each in zip(names, answers, strict=True)))
        return answers


def in_turns(streams: Sequence[Timed]) -> Iterator[tuple[int, str | None]]:
    """A piece of each in turn, so that they grow alike: (which, text), None behind its last."""
    running = dict(enumerate(map(iter, streams)))
    while running:
        for index, stream in list(running.items()):
            text = next(stream, None)
            yield index, text
            if text is None:
                del running[index]


class _Drawing:
    """Rows that still change at the bottom of the terminal, those that are final above."""

    def __init__(self, columns: SideBySide) -> None:
        from rich.console import Console
        from rich.live import Live

        self._columns = columns
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self) -> _Drawing:
        self._live.start()
        return self

    def draw(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < _DRAW_EVERY_S:
            return
        from rich.text import Text

        final = self._columns.take_final()
        fitting = max(1, self._console.height - 2)
        rows = "\n".join(self._columns.open_rows()[-fitting:])
        self._live.update(Text(rows, no_wrap=True, overflow="crop"))
        for row in final:  # each is followed by what is open
            self._console.print(Text(row, no_wrap=True, overflow="crop"))
        self._live.refresh()
        self._drawn = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.draw(now=True)
        self._live.stop()
