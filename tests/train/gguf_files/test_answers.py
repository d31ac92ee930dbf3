"""When two answers are the same but for rounding."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from train.gguf_files.answers import ROUNDING, Comparison, Step, check_16_bits, is_near_tie, place
from train.stage import StageError

GOOD = Comparison(same=9, near_ties=1, answers=10, agreement=0.99, drift=0.002)


def step(*logits: float, spread: float = 2.0) -> Step:
    """The tokens 10, 11, … in the order of their logits."""
    return Step(np.arange(10, 10 + len(logits)), np.array(logits), spread)


def test_a_lead_is_counted_in_standard_deviations() -> None:
    found = step(5.0, 4.9, 1.0)
    assert found.token == 10 and found.lead_over(11) == pytest.approx(0.05)
    assert found.lead_over(99) == math.inf


def test_a_near_tie_is_where_answers_part_first() -> None:
    steps = [step(5.0, 1.0), step(5.0, 4.99), step(5.0, 1.0)]
    assert is_near_tie(steps, [10, 11, 11], 0.01)  # what follows another token is another answer
    assert not is_near_tie(steps, [11, 11], 0.01)
    assert not is_near_tie(steps, [10, 11], 0.004)
    assert not is_near_tie(steps, [10, 12], 0.01)
    assert not is_near_tie(steps, [10, 10], 0.01)  # stopped early without parting


@pytest.mark.parametrize(
    ("gpu", "memory", "expected"),
    [
        (0, 30, ("cpu", "fp32")),
        (0, 20, ("cpu", "bf16")),
        (0, 5, ("cpu", "bf16")),  # and is told if the memory does not do
        (80, 5, ("cuda", "fp32")),
        (24, 300, ("cuda", "bf16")),
        (8, 300, ("cpu", "fp32")),
    ],
)
def test_the_reference_is_computed_where_it_fits(gpu: int, memory: int, expected: tuple[str, str]) -> None:
    assert place(10, gpu_bytes=gpu, memory_bytes=memory) == expected


def test_rounding_passes() -> None:
    check_16_bits(GOOD, "fp32")
    check_16_bits(dataclasses.replace(GOOD, drift=0.1), "bf16")
    assert GOOD.share == 0.9


@pytest.mark.parametrize(
    "changes", [{"near_ties": 0}, {"drift": ROUNDING["fp32"] * 1.01}, {"drift": math.nan}]
)
def test_another_answer_or_other_logits_do_not(changes: dict[str, float]) -> None:
    with pytest.raises(StageError, match="nothing was written"):
        check_16_bits(dataclasses.replace(GOOD, **changes), "fp32")
