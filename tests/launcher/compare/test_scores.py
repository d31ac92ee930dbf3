"""Scores, their differences, and whether these are more than chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from launcher.compare.answers import questions
from launcher.compare.runs import Run
from launcher.compare.scores import Scores, scores
from tests.launcher.compare.compared import pair, with_another


def with_rows(run: Run, rows: list[dict[str, Any]]) -> Run:
    told = (run.facts.scores or {}) | {"records": len(rows)}
    return dataclasses.replace(run, facts=dataclasses.replace(run.facts, predictions=rows, scores=told))


def scored(runs: list[Run]) -> Scores:
    return scores(runs, questions(runs))


def test_differences_and_chance(tmp_path: Path) -> None:
    found = scored(pair(tmp_path))
    matches = found.rows[0]
    assert (matches.label, matches.values) == ("Exact match", [91.67, 66.67])
    assert matches.gain(1) == pytest.approx(-25)
    assert matches.is_better(1) is False
    verdict = matches.verdicts[1]
    assert (verdict.detail, verdict.questions) == ("0 gained, 6 lost of 24", 24)
    assert verdict.p == pytest.approx(2 / 2**6)
    assert str(verdict) == "more than chance (p = 0.031)"
    assert not found.rows[1].verdicts  # BLEU is of the whole file
    assert found.notes == []


def test_rouge_is_judged_where_each_answer_has_its_own(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    told = [
        with_rows(
            run, [{**row, "scores": {"tuned": {"rougeL": 50.0 + gain}}} for row in run.facts.predictions]
        )
        for run, gain in zip(runs, (0, 10), strict=True)
    ]
    rows = {row.name: row for row in scored(told).rows}
    assert rows["rougeL"].verdicts[1].is_difference
    assert rows["rougeL"].verdicts[1].test == "paired bootstrap"
    assert not rows["rouge1"].verdicts


def test_other_test_questions_are_told_and_the_common_ones_compared(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    found = scored([first, with_rows(second, second.facts.predictions[:12])])
    assert found.notes == [
        "The test questions are not the same (A 24, B 12; 12 in common): scores are of each run's own."
    ]
    assert found.rows[0].label == "Exact match, 12 common"
    assert found.rows[0].values == [91.67, 66.67]
    assert found.rows[0].verdicts[1].questions == 12


def test_a_run_without_test_data(tmp_path: Path) -> None:
    found = scored(with_another(tmp_path, predict=False, other={"seed": 1}))
    assert found.rows[0].values == [83.33, None]
    assert found.rows[0].gain(1) is None
    assert found.rows[0].verdicts == {}
    assert found.notes == ["B answered no test questions."]


def test_a_lower_perplexity_is_better(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    told = []
    for run, value in zip(runs, (1.5, 1.25), strict=True):
        values = {"tuned": {"perplexity": value}, "records": 24}
        told.append(dataclasses.replace(run, facts=dataclasses.replace(run.facts, scores=values)))
    (row,) = scored(told).rows
    assert (row.gain(1), row.is_better(1)) == (-0.25, True)
