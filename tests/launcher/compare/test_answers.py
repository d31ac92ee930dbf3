"""Questions are found by what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.local import LocalStore
from launcher.compare import answers
from launcher.compare.runs import Run
from launcher.reporting.collect import RunFacts
from tests.launcher.synthetic_run import make_plan

PLAN = make_plan(LocalStore(Path("none")))


def row(asked: str, answer: str | None, reference: str = "yes", **more: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": asked}]
    return {"prompt": prompt, "reference": reference, "tuned": answer, **more}


def runs(*rows: list[dict[str, Any]]) -> list[Run]:
    return [
        Run(letter, "local", RunFacts(run_id=letter, plan=PLAN, predictions=found))
        for letter, found in zip("ABC", rows, strict=False)
    ]


def asked(question: answers.Question) -> str:
    return str(question.prompt[-1]["content"])


def test_by_question_and_not_by_place() -> None:
    made = runs(
        [row("1", "yes"), row("2", "no"), row("only here", "yes")],
        [row("new", "no"), row("2", "yes"), row("1", "yes ")],
    )
    found = answers.questions(made)
    assert [(asked(question), question.answers, question.right) for question in found] == [
        ("1", ["yes", "yes "], [True, True]),
        ("2", ["no", "yes"], [False, True]),
    ]
    assert [answers.words_of(question, made) for question in found] == [
        ["same", "all-right"],
        ["changed", "gained-b"],
    ]


def test_a_question_that_stands_there_twice_is_paired_in_order() -> None:
    made = runs([row("1", "a"), row("1", "b")], [row("1", "c"), row("1", "d"), row("1", "e")])
    assert [question.answers for question in answers.questions(made)] == [["a", "c"], ["b", "d"]]


def test_other_tools_make_another_question() -> None:
    made = runs([row("1", "a", tools=[{"type": "function"}])], [row("1", "a")])
    assert answers.questions(made) == []


def test_a_mended_reference_is_no_common_ground() -> None:
    (question,) = answers.questions(runs([row("1", "ja", "ja")], [row("1", "yes", "yes")]))
    assert question.right == [True, True]
    assert not question.is_common(0, 1)


def test_three_runs_of_which_one_was_not_asked() -> None:
    made = runs([row("1", "yes")], [row("2", "no")], [row("1", "no")])
    (question,) = answers.questions(made)
    assert question.answers == ["yes", None, "no"]
    assert question.is_common(0, 2)
    assert not question.is_common(0, 1)
    assert answers.words_of(question, made) == ["changed", "lost-c"]
    assert list(answers.filters(made).values()) == [
        "Changed",
        "B right, A wrong",
        "A right, B wrong",
        "C right, A wrong",
        "A right, C wrong",
        "All right",
        "None right",
    ]


def test_a_run_without_answers_of_the_tuned_model() -> None:
    assert answers.questions(runs([row("1", None)], [row("1", "yes")])) == []
