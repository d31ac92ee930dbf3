"""The comparison in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.contract import StageKind
from launcher.compare.comparison import compare
from launcher.compare.text import render
from tests.launcher.compare.compared import THIRD_ID, pair, runs_of, with_another, write_pair
from tests.launcher.plans import assert_golden
from tests.launcher.synthetic_run import RUN_ID, write_run


def test_two_runs(tmp_path: Path) -> None:
    assert_golden("compare.txt", render(compare(pair(tmp_path, products=True)), 100))


def test_three_runs_of_which_one_failed(tmp_path: Path) -> None:
    write_pair(tmp_path)
    other = {"gradient_accumulation_steps": 4}
    write_run(tmp_path, run_id=THIRD_ID, until=StageKind.TRAIN, ending="failed", other=other)
    runs = runs_of(tmp_path, RUN_ID, "harbour-bot-5e6f7a8b", THIRD_ID)
    assert_golden("compare-three.txt", render(compare(runs), 110))


def test_all_of_it(tmp_path: Path) -> None:
    text = render(compare(pair(tmp_path)), 100, everything=True)
    assert "≠ training.learning_rate" in text
    assert "method.rank" in text
    assert text.count("✗") == 6
    assert "more differ" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    lines = render(compare(pair(tmp_path, products=True)), width).splitlines()
    assert max(map(len, lines)) <= width


def test_runs_that_have_nothing_yet(tmp_path: Path) -> None:
    runs = with_another(tmp_path, until=StageKind.DATA, ending="failed", other={"seed": 1}, predict=False)
    text = render(compare(runs), 100)
    assert "failed in data" in text
    assert "rank 1 ran out of memory" in text
