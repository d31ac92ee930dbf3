"""The comparison as a page, read back as HTML."""

from __future__ import annotations

from pathlib import Path

from artifacts.contract import StageKind
from launcher.compare import page as pages
from launcher.compare.comparison import compare
from launcher.compare.page import render, view
from tests.launcher.compare.compared import pair, with_another
from tests.launcher.plans import assert_golden
from tests.launcher.synthetic_run import HOSTILE
from tests.launcher.test_report import FETCHING, Page


def test_whole_page(tmp_path: Path) -> None:
    html = render(compare(pair(tmp_path, products=True)))
    assert_golden("compare.html", html)
    found = Page(html)
    assert found.open == []
    assert "The same data and base model. training.learning_rate: 0.002 → 0.001." in found.text
    assert "more than chance (p = 0.031); 0 gained, 6 lost of 24" in found.text
    assert found.count("svg", "chart") == 16  # four charts on each of four axes
    assert found.count("article", "answer") == 24
    hidden = [attrs["data-by"] for tag, attrs in found.elements if "data-by" in attrs and "hidden" in attrs]
    assert hidden == ["epoch", "supervised tokens", "minutes"]
    assert found.count("span", "down") > 3


def test_nothing_is_fetched_and_only_the_own_script_may_run(tmp_path: Path) -> None:
    found = Page(render(compare(pair(tmp_path, products=True))))
    assert not [(tag, attrs) for tag, attrs in found.elements if tag != "a" and FETCHING & set(attrs)]
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)


def test_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    html = render(compare(pair(tmp_path)))
    assert HOSTILE not in html
    assert HOSTILE in Page(html).text


def test_a_run_that_failed_beside_a_whole_one(tmp_path: Path) -> None:
    other = {"seed": 1}
    html = render(compare(with_another(tmp_path, until=StageKind.TRAIN, ending="failed", other=other)))
    found = Page(html)
    assert found.open == []
    assert "Failed in train" in found.text
    assert "rank 1 ran out of memory" in found.text
    assert found.count("article", "answer") == 0
    assert "B answered no test questions." in found.text


def test_of_many_questions_those_that_differ_are_shown_first(tmp_path: Path) -> None:
    made = compare(pair(tmp_path))
    numbered = list(enumerate(made.questions))
    few = pages._chosen(made.questions, 8)
    assert [index for index, _ in few] == sorted(index for index, _ in few)
    assert {index for index, question in numbered if question.changed} <= {index for index, _ in few}
    assert len(few) == 8
    assert len(view(made, everything=True)["answers"]) == 24
