"""Lines typed on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from train.chat.reading import typed_lines


def typist(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """Types the lines; an exception stands for ^C or ^D."""
    rest = iter([*lines, EOFError])

    def read(prompt: str) -> str:
        line = next(rest)
        if isinstance(line, str):
            return line
        raise line

    return read


def typed(*lines: str | type[BaseException]) -> tuple[list[str], list[str]]:
    """The texts, and what was said beside them."""
    shown: list[str] = []
    return list(typed_lines(shown.append, typist(*lines))), shown


def test_texts() -> None:
    assert typed("one", "", "two\\", "lines")[0] == ["one", "", "two\nlines"]
    assert typed("a\nb")[0] == ["a\nb"], "pasted"


def test_control_c_twice_leaves() -> None:
    texts, shown = typed("a", KeyboardInterrupt, "b", KeyboardInterrupt, KeyboardInterrupt, "c")
    assert texts == ["a", "b"]
    assert sum("/quit leaves" in text for text in shown) == 2


def test_control_c_forgets_an_unfinished_text() -> None:
    assert typed("one\\", KeyboardInterrupt, "two")[0] == ["two"]
