from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.records import GoodRecord
from launcher.stages.data_run.division import Division, copies
from launcher.stages.data_run.shuffling import Shuffler
from tests.artifacts.formats.reading import turns


def good(question: str, answer: str = "a") -> GoodRecord:
    record = turns(question, answer)
    return GoodRecord(1, 0, record, json.dumps(record).encode())


def divided(records: list[GoodRecord], fraction: float, seed: int = 0) -> dict[str, list[str]]:
    """Questions by split."""
    division = Division(fraction, seed)
    settled = [found for record in records for found in division.divide(record, 1)]
    splits: dict[str, list[str]] = {"train": [], "eval": []}
    for split, record, _ in [*settled, *division.finish()]:
        splits[split].append(record.messages[0]["content"])
    return splits


@given(
    weight=st.floats(0.01, 100),
    records=st.integers(1, 400),
)
def test_a_weight_is_a_share(weight: float, records: int) -> None:
    times = [copies(position, weight) for position in range(records)]
    assert abs(sum(times) - weight * records) <= 1 + math.log2(records + 1) / 2
    assert set(times) <= {int(weight), int(weight) + 1} and times[0] >= 1


def test_half_the_records_are_spread_evenly() -> None:
    times = [copies(position, 0.5) for position in range(1000)]
    assert sum(times) == 500
    assert all(40 <= sum(times[start : start + 100]) <= 60 for start in range(0, 1000, 100))
    assert [copies(position, 3) for position in range(5)] == [3] * 5


@given(questions=st.lists(st.sampled_from("abcdefghij"), min_size=1), fraction=st.floats(0.01, 0.5))
def test_no_question_is_on_both_sides(questions: list[str], fraction: float) -> None:
    splits = divided([good(question) for question in questions], fraction)
    assert Counter(splits["train"] + splits["eval"]) == Counter(questions)
    assert splits["eval"] and not set(splits["train"]) & set(splits["eval"])


def test_the_same_share_in_every_run() -> None:
    records = [good(f"question {number}") for number in range(2000)]
    splits = divided(records, 0.1)
    assert splits == divided(records, 0.1) != divided(records, 0.1, seed=1)
    assert 140 < len(splits["eval"]) < 260
    assert set(splits["eval"]) == set(divided(records[::-1], 0.1)["eval"])


def test_questions_that_differ_in_case_and_spaces_stay_together() -> None:
    records = [good(text) for number in range(50) for text in (f"Question {number}?", f"question  {number}")]
    splits = divided(records, 0.3)
    assert len(splits["eval"]) % 2 == 0 and 0 < len(splits["eval"]) < 100


@pytest.mark.parametrize("held_bytes", [10, 10**9])
def test_a_shuffle_loses_nothing_and_is_repeatable(held_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.stages.data_run.shuffling._HELD_BYTES", held_bytes)
    lines = [str(number).encode() for number in range(500)]

    def shuffled(seed: int) -> list[bytes]:
        found: list[bytes] = []
        shuffler = Shuffler(found.append, seed)
        for line in lines:
            shuffler.write(line)
        shuffler.finish()
        return found

    assert sorted(shuffled(0)) == sorted(lines) and shuffled(0) == shuffled(0)
    assert shuffled(0) != shuffled(1) and shuffled(0) != lines
    # Both halves are spread over all of it.
    first = sum(line in lines[:250] for line in shuffled(0)[:250])
    assert 90 < first < 160
