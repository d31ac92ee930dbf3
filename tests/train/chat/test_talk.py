"""A conversation over a model that repeats the last message."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.train.chat_templates import chat
from tests.train.serving_fakes import EchoEngine
from train.chat.commands import CommandError
from train.chat.conversation import Conversation
from train.chat.screen import Answer, PlainScreen
from train.chat.talk import Speaker, Talk
from train.talk.engine import Piece, PromptError, Sampling


class Recorder:
    """A screen that shows nothing. It stops after `words` of an answer, as ^C does, once."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.shown: list[dict[str, str]] = []
        self._stop_after = stop_after

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show(self, names: Sequence[str], streams: Sequence[Iterator[Piece]]) -> list[Answer]:
        texts = []
        for stream in streams:
            count, self._stop_after = self._stop_after, None
            texts.append("".join([piece.text for piece, _ in zip(stream, range(count or 99), strict=False)]))
        self.shown.append(dict(zip(names, texts, strict=True)))
        return [Answer(text, "") for text in texts]


def talk(
    *engines: EchoEngine, lines: Sequence[str], screen: Recorder | None = None, seed: int | None = None
) -> Recorder:
    """Have the lines said; returns what was to be seen."""
    screen = screen or Recorder()
    speakers = [Speaker(f"m{at}", engine, Conversation("s")) for at, engine in enumerate(engines)]
    Talk(speakers, Sampling(seed=seed), screen).run(lines)
    return screen


def test_turns() -> None:
    engine = EchoEngine()
    screen = talk(engine, lines=["one two", "", "three", "/quit", "never"])
    assert screen.shown == [{"m0": "one two"}, {"m0": "three"}]
    assert [messages for messages, _ in engine.asked] == [
        chat("one two", system="s"),
        chat("one two", "one two", "three", system="s"),
    ]


def test_commands() -> None:
    engine = EchoEngine()
    screen = talk(engine, lines=["a", "/system t", "b", "/reset", "/system", "c", "/help"])
    assert [messages for messages, _ in engine.asked] == [
        chat("a", system="s"),
        chat("a", "a", "b", system="t"),
        chat("c"),
    ]
    assert "/retry" in screen.notes[-1]


def test_two_models_are_asked_the_same_and_remember_their_own_answers() -> None:
    base, tuned = EchoEngine(words=["no"]), EchoEngine()
    screen = talk(base, tuned, lines=["a", "b", "/retry"])
    assert screen.shown == [{"m0": "no", "m1": "a"}, {"m0": "no", "m1": "b"}, {"m0": "no", "m1": "b"}]
    assert base.asked[1:] == [(chat("a", "no", "b", system="s"), None)] * 2
    assert tuned.asked[1:] == [(chat("a", "a", "b", system="s"), None)] * 2


def test_each_answer_is_drawn_anew_from_the_seed() -> None:
    engine = EchoEngine()
    talk(engine, lines=["a", "b", "/retry"], seed=5)
    assert [sampling.seed for sampling in engine.samplings] == [5, 6, 7]
    talk(engine, lines=["a"])
    assert engine.samplings[-1].seed is None


def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    engine = EchoEngine()
    talk(engine, lines=["one two three", "more"], screen=Recorder(stop_after=2))
    assert engine.closed_early == 1
    assert engine.asked[1][0] == chat("one two three", "one two", "more", system="s")


def test_a_question_that_can_not_be_answered_is_as_if_never_asked() -> None:
    engine = EchoEngine()
    screen = talk(engine, lines=["a", "refused", "b", "/retry"])
    assert screen.notes == ["the template refuses it"]
    assert [messages[-1]["content"] for messages, _ in engine.asked] == ["a", "b", "b"]
    assert engine.asked[1][0] == chat("a", "a", "b", system="s")


def test_mistakes_end_nothing_on_a_terminal(tmp_path: Path) -> None:
    lines = ["/nonsense", "/retry", "/save x", "a", f"/save {tmp_path}", "/save /nowhere/x", "b"]
    screen = talk(EchoEngine(), lines=lines)
    assert len(screen.notes) == 5 and len(screen.shown) == 2
    assert screen.notes[1:] == [
        "there is no question to answer again",
        "there is no answer to save",
        f"{tmp_path} can't be written: Is a directory",
        "/nowhere/x can't be written: No such file or directory",
    ]


@pytest.mark.parametrize(("line", "error"), [("/nonsense", CommandError), ("refused", PromptError)])
def test_a_mistake_ends_a_script(line: str, error: type[Exception]) -> None:
    speaker = Speaker("m", EchoEngine(), Conversation())
    with pytest.raises(error):
        Talk([speaker], Sampling(), Recorder(), strict=True).run([line, "a"])


def test_save_keeps_the_last_models_conversation(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    screen = talk(EchoEngine(words=["no"]), EchoEngine(), lines=["a", f"/save {file}"])
    assert json.loads(file.read_text()) == {"messages": chat("a", "a", system="s")}
    assert screen.notes == [f"{file}: 1 conversation"]


def test_plain_output(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes into a pipe is what the model wrote."""
    engine = EchoEngine(words=["\x1b[2J", "\ttab"])
    Talk([Speaker("m", engine, Conversation())], Sampling(), PlainScreen(), strict=True).run(["a"])
    assert capsys.readouterr() == ("\x1b[2J \ttab\n", "")
