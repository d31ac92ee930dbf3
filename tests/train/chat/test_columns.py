"""Two growing texts side by side."""

from __future__ import annotations

import pytest

from train.chat.columns import GAP, SideBySide, column_width, wrap


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("abcdefghij", ["abcdefgh", "ij"]),
        ("a abcdefghij", ["a", "abcdefgh", "ij"]),
        ("你好世界啊", ["你好世界", "啊"]),  # two cells each
        ("  x", ["  x"]),
    ],
)
def test_wrap(text: str, lines: list[str]) -> None:
    assert wrap(text, 8) == lines


def test_lines_stay_as_they_are_when_the_text_grows() -> None:
    text = "words of 多种 lengths, andonethatistoolongforaline\nand more " * 3
    for end in range(len(text)):
        grown = wrap(text, 9)
        shorter = wrap(text[:end], 9)[:-1]
        assert grown[: len(shorter)] == shorter


def test_width() -> None:
    assert column_width(80) == 37
    assert column_width(40) is None


def test_rows() -> None:
    columns = SideBySide(6)
    columns.add(0, "left\n")
    columns.add(1, "right\nis longer")
    assert columns.open_rows() == [f"left  {GAP}right", f"      {GAP}is", f"      {GAP}longer"]
    assert columns.take_final() == [f"left  {GAP}right"], "the left one may still say something beside `is`"
    columns.add(0, "你好吗 x")
    assert columns.take_final() == [f"你好吗{GAP}is"]
    columns.end(0)
    assert columns.take_final() == []
    columns.end(1)
    assert columns.take_final() == [f"x     {GAP}longer"]
    assert columns.open_rows() == []
