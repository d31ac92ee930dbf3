"""The choice of the next token, beside transformers' own where that is the reference."""

from __future__ import annotations

import numpy as np
import pytest

from train.talk.engine import Sampling
from train.talk.sampling import Chooser, best

LOGITS = np.array([1.0, 3.0, 2.0, 0.0, -1.0], np.float32)


def choices(count: int, logits: np.ndarray = LOGITS, **settings: float | int) -> list[int]:
    chooser = Chooser(Sampling(**settings), [])  # type: ignore[arg-type]
    return [chooser.choose(logits) for _ in range(count)]


def test_greedy() -> None:
    assert choices(2) == [1, 1]
    assert choices(1, np.zeros(4, np.float32)) == [0]


def test_the_seed_decides() -> None:
    first = choices(50, temperature=2.0, seed=7)
    assert first == choices(50, temperature=2.0, seed=7)
    assert first != choices(50, temperature=2.0, seed=8)


def test_tokens_come_as_often_as_their_probability_says() -> None:
    counts = np.bincount(choices(4000, temperature=0.5, seed=0), minlength=5) / 4000
    powers = np.exp(LOGITS / 0.5)
    np.testing.assert_allclose(counts, powers / powers.sum(), atol=0.02)


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.1}, {1}),
        ({"top_p": 0.5}, {1, 2}),  # the best has 0.43 of it all at this temperature, two have 0.69
        ({"top_k": 2, "top_p": 0.5}, {1}),  # shares among those that top_k has left
    ],
)
def test_what_is_left_to_choose_from(settings: dict[str, float], possible: set[int]) -> None:
    assert set(choices(400, temperature=2.0, seed=1, **settings)) == possible


def test_top_p_beyond_the_likely_tokens() -> None:
    """A flat distribution has more tokens in `top_p` than are looked at first."""
    flat = np.zeros(4096, np.float32)
    assert max(choices(400, flat, temperature=1.0, top_p=0.9, seed=0)) > 2048


def test_penalty_for_what_occurred() -> None:
    chooser = Chooser(Sampling(repetition_penalty=4.0), [1, 99])
    assert [chooser.choose(LOGITS) for _ in range(3)] == [2, 0, 1], "the prompt's and each chosen one"
    negative = Chooser(Sampling(repetition_penalty=2.0), [0])
    assert negative.choose(np.array([-1.0, -1.5], np.float32)) == 1


def test_best() -> None:
    assert best(np.array([1.0, 2.0, 2.0, 0.0]), 3).tolist() == [1, 2, 0]
