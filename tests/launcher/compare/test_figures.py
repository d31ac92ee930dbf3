"""Figures side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.contract import StageKind
from launcher.compare.figures import FigureRow, figure_rows
from launcher.compare.runs import Run
from tests.launcher.compare.compared import pair, with_another


def by_label(runs: list[Run]) -> dict[str, FigureRow]:
    return {row.label: row for row in figure_rows(runs)}


def test_training_time_and_products(tmp_path: Path) -> None:
    rows = by_label(pair(tmp_path, products=True))
    assert rows["Evaluation loss, last"].is_better(1) is False
    assert rows["Evaluation loss, last"].values[0] == pytest.approx(0.4195, abs=1e-4)
    assert rows["Steps"].texts == ["90", "90"]
    assert rows["Steps"].change_text(1) == ""
    assert rows["Supervised tokens learnt"].texts == ["44,928", "44,928"]
    assert rows["Stage train"].texts == ["31 s", "31 s"]
    assert rows["Worker hours of training"].values[0] == pytest.approx(2 * 31 / 3600)
    assert rows["merged model: drift"].texts == ["3.1e-6", "3.1e-6"]
    assert rows["GPTQ: perplexity"].texts == ["1.302 → 1.348"] * 2
    assert rows["GGUF: q4_k_m"].texts == ["870 kB", "870 kB"]
    assert rows["published: address"].texts[0] == "https://huggingface.co/harbour/bot"


def test_a_run_that_failed_has_what_it_came_to(tmp_path: Path) -> None:
    rows = by_label(
        with_another(tmp_path, until=StageKind.TRAIN, ending="failed", other={"learning_rate": 1e-3})
    )
    assert rows["Steps"].values == [90, 40]
    assert rows["Stage merge"].texts == ["2.2 s", "–"]
    assert rows["merged model: size"].values[1] is None
    assert rows["merged model: size"].change(1) is None


def row(first: float, second: float) -> FigureRow:
    return FigureRow(
        group="Training", label="x", values=[first, second], texts=[f"{first}", f"{second}"], better="lower"
    )


def test_changes_in_words() -> None:
    assert row(1.0, 1.05).change_text(1) == "+5.0%"
    assert row(2.0, 1.0).change_text(1) == "-50%"
    assert row(1.0, 20.0).change_text(1) == "× 20"
    assert row(0.0, 1.0).change_text(1) == ""
    assert row(1.0, 1.0).change_text(1) == ""
    assert (row(2.0, 1.0).is_better(1), row(1.0, 2.0).is_better(1)) == (True, False)
    assert row(1.0, 1.001).is_better(1) is None  # not worth a colour
