"""Answers token by token: what is computed, where they end, how they are given up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from train.talk import generation
from train.talk.engine import Piece, PromptError, Sampling

LETTERS = "abcdefgh."
STOP = LETTERS.index(".")


class Alphabet:
    """A model that says the letter after the last one read. It can't forget but all where `recurrent`."""

    def __init__(self, *, recurrent: bool = False) -> None:
        self.read: list[int] = []
        self.fed: list[list[int]] = []
        self._recurrent = recurrent

    def keep(self, count: int) -> None:
        if count < len(self.read):
            del self.read[0 if self._recurrent else count :]

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        self.fed.append(list(tokens))
        self.read += tokens
        return np.eye(len(LETTERS), dtype=np.float32)[(tokens[-1] + 1) % len(LETTERS)]


class Letters:
    """`Decoder` of its tokens."""

    def feed(self, token: int) -> str:
        return LETTERS[token]

    def flush(self) -> str:
        return ""


def ids(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def pieces(model: Alphabet, prompt: str, context_length: int = 100, **settings: Any) -> list[Piece]:
    options = {"context_length": context_length, "decoder": Letters(), "stop_ids": {STOP}}
    return list(generation.answer(model, ids(prompt), Sampling(**settings), **options))  # type: ignore[arg-type]


def told(made: list[Piece]) -> tuple[str, int, str | None]:
    return "".join(piece.text for piece in made), made[-1].tokens, made[-1].finish_reason


def test_until_the_model_stops() -> None:
    made = pieces(Alphabet(), "abc")
    assert told(made) == ("defgh", 5, "stop")
    assert [piece.text for piece in made] == ["d", "e", "f", "g", "h", ""]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_new_tokens": 2}, ("de", 2, "length")),
        ({"context_length": 5}, ("de", 2, "length")),
        ({"max_new_tokens": 0}, ("", 0, "length")),
        ({"stop": ["fg"]}, ("de", 4, "stop")),
        ({"stop": ["fx"], "max_new_tokens": 3}, ("def", 3, "length")),  # what was held back is shown
        ({"stop": ["ef"], "max_new_tokens": 3}, ("d", 3, "stop")),
    ],
)
def test_where_else_it_ends(settings: dict[str, Any], expected: tuple[str, int, str]) -> None:
    assert told(pieces(Alphabet(), "abc", **settings)) == expected


def test_the_last_token_is_not_computed_in_vain() -> None:
    model = Alphabet()
    pieces(model, "abc", max_new_tokens=2)
    assert model.fed == [ids("abc"), ids("d")]


def test_a_next_turn_computes_what_is_new() -> None:
    model = Alphabet()
    pieces(model, "abc")
    model.fed.clear()
    pieces(model, "abcdefgh.ab", max_new_tokens=1)
    assert model.fed == [ids(".ab")]
    model.fed.clear()
    pieces(model, "abd", max_new_tokens=1)
    assert model.fed == [ids("d")], "an edited question"
    model.fed.clear()
    pieces(model, "abd", max_new_tokens=1)
    assert model.fed == [ids("d")], "the same once more: logits must be had again"


def test_a_model_that_can_not_forget_reads_all_again() -> None:
    model = Alphabet(recurrent=True)
    pieces(model, "abc", max_new_tokens=3)
    model.fed.clear()
    assert told(pieces(model, "abd", max_new_tokens=1))[0] == "e"
    assert model.fed == [ids("abd")]


def test_a_long_prompt_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "CHUNK_TOKENS", 4)
    model = Alphabet()
    options = {"context_length": 100, "decoder": Letters(), "stop_ids": {STOP}}
    stream = generation.answer(model, ids("abcdefgh" * 2), Sampling(), **options)  # type: ignore[arg-type]
    assert next(stream) == Piece(text="", tokens=0)
    stream.close()
    assert len(model.read) == 4
    assert told(pieces(model, "abcdefgh" * 2)) == ("", 0, "stop")
    assert [len(tokens) for tokens in model.fed] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("prompt", "why"),
    [("", "empty"), ("abcde", "5 tokens, and the model's context holds 5")],
)
def test_prompts_without_an_answer_fail_before_anything_is_computed(prompt: str, why: str) -> None:
    model = Alphabet()
    options = {"context_length": 5, "decoder": Letters(), "stop_ids": {STOP}}
    with pytest.raises(PromptError, match=why):
        generation.answer(model, ids(prompt), Sampling(), **options)  # type: ignore[arg-type]
    assert not model.fed
