"""What the model is asked with, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.train.chat_templates import chat
from train.chat.conversation import Conversation, save


def talk(*turns: str, system: str | None = None) -> Conversation:
    """Questions and answers in turn."""
    conversation = Conversation(system)
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        conversation.ask(question)
        conversation.answer(answer)
    return conversation


def test_messages() -> None:
    conversation = talk("q1", "a1", system="s")
    assert conversation.ask("q2") == chat("q1", "a1", "q2", system="s")
    conversation.answer("a2")
    assert conversation.messages == chat("q1", "a1", "q2", "a2", system="s")
    conversation.system = None
    assert conversation.messages == chat("q1", "a1", "q2", "a2")
    conversation.reset()
    assert conversation.messages == [] and not conversation.has_answer


def test_a_question_without_an_answer_is_left_out_and_can_be_asked_again() -> None:
    conversation = talk("q1", "a1", "q2", "")
    assert conversation.messages == chat("q1", "a1")
    assert conversation.take_back() == "q2"
    assert conversation.messages == chat("q1", "a1")
    assert conversation.ask("q3") == chat("q1", "a1", "q3")


def test_taking_back() -> None:
    conversation = talk("q1", "a1")
    conversation.ask("q2")
    assert conversation.take_back() == "q2", "while it is being answered"
    assert conversation.take_back() == "q1"
    assert conversation.take_back() is None
    assert conversation.messages == []


def test_conversations_are_appended(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    assert save(talk("q", "你好\n🤖", system="s"), file) == 1
    file.write_bytes(file.read_bytes().rstrip(b"\n"))  # as editors leave it
    assert save(talk("q", "a"), file) == 2
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"messages": chat("q", "你好\n🤖", system="s")}, {"messages": chat("q", "a")}]


@pytest.mark.parametrize("content", [b"[\n]", b"\xff\xfe", b"Once upon a time\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="something else"):
        save(talk("q", "a"), file)
    assert file.read_bytes() == content
