"""Tests of significance, against values worked out elsewhere."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.compare.chance import Verdict, bootstrap, mcnemar, p_text


def pairs(lost: int, gained: int, both: int = 3, neither: int = 2) -> tuple[list[bool], list[bool]]:
    found = [(True, False)] * lost + [(False, True)] * gained + [(True, True)] * both
    found += [(False, False)] * neither
    return [first for first, _ in found], [second for _, second in found]


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 9, 2 / 2**9),
        (9, 0, 2 / 2**9),
        (1, 9, 2 * (1 + 10) / 2**10),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (59, 121, 2 * sum(math.comb(180, tails) for tails in range(60)) / 2**180),
    ],
)
def test_mcnemar_is_the_exact_binomial_test_of_what_only_one_answers(
    lost: int, gained: int, p: float
) -> None:
    assert mcnemar(*pairs(lost, gained)) == pytest.approx(p, rel=1e-3)


def test_mcnemar_of_many_questions() -> None:
    assert mcnemar(*pairs(25_000, 25_000)) == 1.0
    spread = (25_500 - 24_500) / math.sqrt(50_000)
    assert mcnemar(*pairs(24_500, 25_500)) == pytest.approx(math.erfc(spread / math.sqrt(2)), rel=0.05)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric(found: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in found], [b for _, b in found]
    assert mcnemar(first, second) == pytest.approx(mcnemar(second, first))
    assert 0 < mcnemar(first, second) <= 1


def scored(count: int, gain: float, seed: int) -> tuple[list[float], list[float]]:
    noise = random.Random(seed)
    first = [noise.gauss(50, 10) for _ in range(count)]
    return first, [value + gain + noise.gauss(0, 5) for value in first]


def test_bootstrap_finds_a_difference_and_none() -> None:
    assert bootstrap(*scored(100, 3.0, 1)) < 0.001
    assert bootstrap(*scored(100, 0.0, 1)) > 0.1
    assert bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    assert bootstrap([1.0], [2.0]) == 1.0


def test_bootstrap_and_the_normal_distribution_agree() -> None:
    first, second = scored(999, 0.25, 3)
    resampled = bootstrap(first, second)
    more = bootstrap([*first, first[0]], [*second, second[0]])  # from here on normal
    assert 0.01 < resampled < 0.2
    assert more == pytest.approx(resampled, abs=0.02)


def test_bootstrap_gives_the_same_again() -> None:
    assert bootstrap(*scored(50, 0.5, 2)) == bootstrap(*scored(50, 0.5, 2))


def test_words() -> None:
    assert [str(Verdict(p=p, test="", questions=9)) for p in (0.01, 0.3, 1.0)] == [
        "more than chance (p = 0.010)",
        "may be chance (p = 0.30)",
        "no difference",
    ]
    assert [p_text(p) for p in (0.0001, 0.004, 0.0519, 0.384, 1.0)] == [
        "p < 0.001",
        "p = 0.004",
        "p = 0.052",
        "p = 0.38",
        "p = 1.00",
    ]
