"""Durations to steps."""

from __future__ import annotations

import pytest

from tests.train.training import params
from train.schedule import interval, resolve


def test_epochs_become_steps_by_the_global_batch() -> None:
    # 2 sequences × 3 micro-batches × 2 ranks = 12 a step; 40 sequences: 3 whole steps and a smaller one
    plan = resolve(params(steps=None, epochs=2.5, gradient_accumulation_steps=3), sequences=40)
    assert (plan.steps_per_epoch, plan.max_steps) == (4, 10)


def test_rounding_errors_make_no_further_step() -> None:
    # In binary, 1.1 × 50 and 0.07 × 100 are a little more than 55 and 7.
    plan = resolve(params(steps=None, epochs=1.1), sequences=200)
    assert (plan.steps_per_epoch, plan.max_steps) == (50, 55)
    warmed = resolve(params(steps=100, warmup_steps=None, warmup_share=0.07), sequences=40)
    assert warmed.warmup_steps == 7


def test_steps_are_taken_as_they_are() -> None:
    assert resolve(params(steps=7), sequences=1).max_steps == 7


@pytest.mark.parametrize(
    ("warmup_steps", "warmup_share", "expected"),
    [(None, None, 0), (3, None, 3), (99, None, 10), (None, 0.05, 1)],
)
def test_warmup(warmup_steps: int | None, warmup_share: float | None, expected: int) -> None:
    plan = resolve(params(steps=10, warmup_steps=warmup_steps, warmup_share=warmup_share), sequences=40)
    assert plan.warmup_steps == expected


@pytest.mark.parametrize(("every", "expected"), [(None, 8), (0.25, 2), (0.01, 1), (1, 1), (5.0, 5)])
def test_intervals(every: float | None, expected: int) -> None:
    assert interval(every, steps_per_epoch=8) == expected


def test_the_last_step_is_evaluated_and_not_saved() -> None:
    plan = resolve(params(steps=10, evaluate_every=4, save_every=5), sequences=40)
    assert [step for step in range(1, 11) if plan.evaluates(step)] == [4, 8, 10]
    assert [step for step in range(1, 11) if plan.saves(step)] == [5]


@pytest.mark.parametrize(
    ("after", "up_to", "expected"),
    [(0, 3, 0), (0, 4, 1), (4, 8, 1), (4, 7, 0), (0, 10, 3), (8, 10, 1), (10, 10, 0), (3, 9, 2)],
)
def test_evaluations_between_two_steps(after: int, up_to: int, expected: int) -> None:
    plan = resolve(params(steps=10, evaluate_every=4), sequences=40)
    assert plan.evaluations(after, up_to) == expected
    assert expected == sum(plan.evaluates(step) for step in range(after + 1, up_to + 1))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        resolve(params(), sequences=0)
