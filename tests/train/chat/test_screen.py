"""What is seen of answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from train.chat.screen import TerminalScreen, Timed, in_turns
from train.talk.engine import Piece


def pieces(*texts: str | type[BaseException], reason: str | None = "stop") -> Iterator[Piece]:
    """A piece a text; an exception stands for ^C on the way."""
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise text
        yield Piece(text=text, tokens=number)
    yield Piece(text="", tokens=len(texts), finish_reason=reason)  # type: ignore[arg-type]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> TerminalScreen:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return TerminalScreen()


def test_one_answer(screen: TerminalScreen, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = screen.show(["m"], [pieces("one", " two")])
    assert (answer.text, answer.stopped) == ("one two", False)
    shown = capsys.readouterr().out
    assert re.fullmatch(r"one two\n2 tokens, [\d.]+ tokens/s, the first after 0\.0 s\n", shown)


def test_remarks(screen: TerminalScreen) -> None:
    assert "cut off" in screen.show(["m"], [pieces("a", reason="length")])[0].remark
    assert screen.show(["m"], [pieces()])[0].remark == "0 tokens"
    assert screen.show(["m"], [pieces("a")])[0].remark.startswith("1 token, the first")


def test_a_stopped_answer(screen: TerminalScreen, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = screen.show(["m"], [pieces("one", KeyboardInterrupt)])
    assert (answer.text, answer.stopped) == ("one", True)
    assert capsys.readouterr().out.endswith("stopped\n")


def test_answers_steer_no_terminal(screen: TerminalScreen, capsys: pytest.CaptureFixture[str]) -> None:
    (answer,) = screen.show(["m"], [pieces("\x1b]0;title\x07", "\r\x9b2J", "\u202e 你好 👩‍👧\n\tend")])
    shown = capsys.readouterr().out
    assert "\\x1b]0;title\\x07\\r\\x9b2J\\u202e 你好 👩‍👧\n    end" in shown
    assert "\x1b" not in shown
    assert answer.text.startswith("\x1b"), "saved and asked on with as it is"


@pytest.mark.parametrize("cells", [80, 40])
def test_two_answers(
    screen: TerminalScreen,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    cells: int,
) -> None:
    """In columns, or one under the other where these would be too narrow."""
    monkeypatch.setenv("COLUMNS", str(cells))
    answers = screen.show(["base", "tuned"], [pieces("\x1b[2J", "one"), pieces("two", " three", " four")])
    assert [answer.text for answer in answers] == ["\x1b[2Jone", "two three four"]
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    if cells == 80:
        assert re.search(r"^base +│  tuned\n\\x1b\[2Jone +│  two three four$", shown, re.MULTILINE)
    else:
        assert re.match(r"base:\n\\x1b\[2Jone\n2 tokens.*\ntuned:\ntwo three four\n3 tokens", shown)


@pytest.mark.parametrize("cells", ["80", "40"])
def test_control_c_stops_both(screen: TerminalScreen, monkeypatch: pytest.MonkeyPatch, cells: str) -> None:
    monkeypatch.setenv("COLUMNS", cells)
    answers = screen.show(["a", "b"], [pieces("x", KeyboardInterrupt), pieces("y", "z")])
    assert [answer.text for answer in answers] == ["x", "y" if cells == "80" else ""]
    assert all(answer.stopped for answer in answers)


def test_answers_grow_alike() -> None:
    streams = [Timed(pieces("a")), Timed(pieces("b", "c"))]
    assert "".join(f"{at}{text or '.'}" for at, text in in_turns(streams) if text != "") == "0a1b1c0.1."
