"""What of a test record is asked, and which of its tokens are the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import TwinParams
from train.data.loading import load_chat_tokenizer
from train.data.tokenize import ChatTokenizer
from train.questions import Question, batches, encode_question
from train.twin import make_twin

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"city": "서울"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("twin")
    for name, data in make_twin(TwinParams(vocabulary_size=320), ["Why? Because."]).items():
        (folder / name).write_bytes(data)
    return load_chat_tokenizer(Path(folder))


@pytest.mark.parametrize(
    ("messages", "prompt", "answer"),
    [
        ([USER, ANSWER], [USER], ANSWER),
        ([USER, ANSWER, USER, ANSWER, USER], [USER, ANSWER, USER], ANSWER),
        ([USER, ANSWER | {"train": False}], [USER], ANSWER),
        ([USER], None, None),
        ([ANSWER, USER], None, None),
    ],
)
def test_the_last_turn_is_asked_for(messages: list[Any], prompt: list[Any] | None, answer: Any) -> None:
    question = Question.of({"messages": messages})
    assert question == (None if prompt is None else Question(prompt, answer))


def test_text_without_turns_asks_nothing() -> None:
    assert Question.of({"text": "once upon a time"}) is None


def test_calls_are_the_reference_of_a_turn_without_words() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    question = Question.of({"messages": [USER, turn], "tools": [TOOL]})
    assert question is not None and question.tools == [TOOL]
    assert question.reference == '{"name": "look_up", "arguments": {"city": "서울"}}'
    worded = Question([USER], turn | {"content": "I look it up."})
    assert worded.reference == "I look it up."


def test_the_references_tokens_are_those_after_the_prompt(tokenizer: ChatTokenizer) -> None:
    """Earlier turns of the assistant were learnt too, and are not asked for."""
    encoded = encode_question(tokenizer, Question([USER, ANSWER, USER], ANSWER))
    assert encoded.whole[: len(encoded.prompt)] == encoded.prompt
    asked = [token for token, learnt in zip(encoded.whole, encoded.learnt, strict=True) if learnt]
    assert tokenizer.backend.decode(asked, skip_special_tokens=False) == "Because.<|im_end|>"


def test_batches_hold_similar_lengths_longest_first() -> None:
    assert batches([3, 9, 1, 9, 5], 2) == [[1, 3], [4, 0], [2]]
    assert batches([], 4) == []
