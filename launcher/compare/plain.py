"""Tables, curves and texts as lines of a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from launcher.reporting import charts

_GAP = 2  # spaces between columns
_LEAST_CELL = 8
_SPARKS = "▁▂▃▄▅▆▇█"
_LINES = 3  # of a text that is shortened


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, right_from: int | None = None
) -> list[str]:
    """Columns that share `width`: the widest give way first, and what does not fit is cut. From
    `right_from` on they are set to the right."""
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headings))]
    while sum(widths) + _GAP * (len(widths) - 1) > width and max(widths) > _LEAST_CELL:
        widths[widths.index(max(widths))] -= 1
    return [
        (" " * _GAP)
        .join(
            _cut(cell, size).rjust(size)
            if right_from is not None and index >= right_from
            else _cut(cell, size).ljust(size)
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in cells
    ]


def clean(text: str) -> str:
    """In one line, and nothing in it that a terminal would take for an order."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def sparkline(values: Sequence[float | None], low: float, high: float, *, log: bool = False) -> str:
    """A letter for each value, a blank for none."""
    scale = charts.Scale(low, high, 0, len(_SPARKS) - 1, log)
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    return "".join(" " if value is None else _SPARKS[round(scale(value))] for value in known)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def shortened(text: str, width: int, indent: str = "") -> list[str]:
    """The beginning of a text, in a few lines."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        max_lines=_LINES,
        placeholder=" …",
    )
