"""Tables, curves and texts as lines of a terminal, which shows Chinese characters two columns wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

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
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(headings))]
    while sum(widths) + _GAP * (len(widths) - 1) > width and max(widths) > _LEAST_CELL:
        widths[widths.index(max(widths))] -= 1
    return [
        (" " * _GAP)
        .join(
            _fitted(cell, size, right=right_from is not None and index >= right_from)
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


def _fitted(text: str, size: int, *, right: bool) -> str:
    """Cut or padded to `size` columns."""
    if cell_len(text) > size:
        return f"{set_cell_size(text, size - 1)}…"
    return " " * (size - cell_len(text)) + text if right else set_cell_size(text, size)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _letters(text, width), initial_indent=indent, subsequent_indent=indent)


def shortened(text: str, width: int, indent: str = "") -> list[str]:
    """The beginning of a text, in a few lines."""
    whole = textwrap.wrap(text, _letters(text, width), initial_indent=indent, subsequent_indent=f"{indent}  ")
    lines = whole[:_LINES]
    if len(whole) > _LINES:
        last = lines[-1]
        lines[-1] = f"{set_cell_size(last, min(cell_len(last), width - 2)).rstrip()} …"
    return lines


def _letters(text: str, width: int) -> int:
    """How many letters of such a text fit so many columns."""
    return max(_LEAST_CELL, width * len(text) // max(1, cell_len(text)))
