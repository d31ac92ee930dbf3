"""Two texts side by side, as they grow. Widths are in a terminal's cells: Chinese characters take two."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from rich.cells import cell_len, chop_cells, set_cell_size

GAP = "  │  "
#: Fewest cells of a column: on narrower terminals texts stand one under the other.
NARROWEST = 24
_WORD_STARTS = re.compile(r"(?<=\s)(?=\S)")


def column_width(terminal_cells: int) -> int | None:
    """Cells of each of two columns; None where the terminal is too narrow for them."""
    width = (terminal_cells - cell_len(GAP)) // 2
    return width if width >= NARROWEST else None


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken between words where these fit. All but the last stay as they are
    when the text grows."""
    return [part for line in text.split("\n") for part in _wrap_line(line, width)]


def _wrap_line(line: str, width: int) -> Iterator[str]:
    current = ""
    for word in _WORD_STARTS.split(line):
        if cell_len((current + word).rstrip()) <= width:
            current += word
            continue
        if current:
            yield current.rstrip()
        *full, current = chop_cells(word, width)
        yield from (piece.rstrip() for piece in full)
    yield current.rstrip()


class SideBySide:
    """Two growing texts as rows of two columns. A row is final once both texts have gone past it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._texts = ["", ""]
        self._ended = [False, False]
        self._taken = 0

    def add(self, column: int, text: str) -> None:
        self._texts[column] += text

    def end(self, column: int) -> None:
        """No more text will come."""
        self._ended[column] = True

    def take_final(self) -> list[str]:
        """The rows that have become final since the last call."""
        columns = self._columns()
        final = min(
            max(map(len, columns)) if ended else len(lines) - 1
            for lines, ended in zip(columns, self._ended, strict=True)
        )
        rows = self._rows(columns)[self._taken : final]
        self._taken = max(self._taken, final)
        return rows

    def open_rows(self) -> list[str]:
        """Those that may still change."""
        return self._rows(self._columns())[self._taken :]

    def _columns(self) -> list[list[str]]:
        return [wrap(text, self._width) for text in self._texts]

    def _rows(self, columns: list[list[str]]) -> list[str]:
        pairs = itertools.zip_longest(*columns, fillvalue="")
        return [f"{set_cell_size(left, self._width)}{GAP}{right}".rstrip() for left, right in pairs]
