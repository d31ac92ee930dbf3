from __future__ import annotations

from typing import Any

import pytest

from artifacts.contract import Reading
from artifacts.formats import RecordError, RecordReader
from tests.artifacts.formats.reading import read, reason, turns


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("prompt", "response"),
        ("prompt", "completion"),
        ("question", "answer"),
        ("query", "response"),
        ("instruction", "response"),
        ("content", "summary"),
    ],
)
def test_well_known_columns_need_no_names(question: str, answer: str) -> None:
    assert read("prompt_response", {question: "a", answer: "b"}) == ([turns("a", "b")], {})


def test_columns_by_name_with_a_history() -> None:
    record = {"ask": "c", "reply": "d", "before": [["a", "b"]], "who": "S", "response": "unread"}
    columns = {"prompt": "ask", "response": "reply", "history": "before", "system": "who"}
    (found,), lost = read("prompt_response", record, columns=columns)
    assert found["messages"] == [{"role": "system", "content": "S"}, *turns("a", "b", "c", "d")["messages"]]
    assert lost == {"response": 1}


def test_the_first_record_that_has_them_settles_the_columns() -> None:
    reader = RecordReader("prompt_response", Reading())
    with pytest.raises(RecordError):
        reader.read({"prompt": "x"})
    assert reader.read({"question": "a", "answer": "b"}) == [turns("a", "b")]
    assert reader.told_columns == ["question", "answer"]
    with pytest.raises(RecordError, match="found prompt, response; wanted: question and answer"):
        reader.read({"prompt": "a", "response": "b"})


def test_a_history_that_has_no_column_is_told() -> None:
    record = {"instruction": "a", "input": "", "output": "b", "history": [["x", "y"]]}
    found, lost = read("alpaca", record, columns={"history": ""})
    assert found == [turns("a", "b")] and lost == {"history": 1}


def test_an_instruction_stands_before_each_question() -> None:
    record = {"input": "He go .", "target": "He goes."}
    found, _ = read("input_target", record, instruction="Correct this: ", fix_spacing=True)
    assert found == [turns("Correct this: He go.", "He goes.")]


def test_c4_200m_as_it_comes() -> None:
    assert read("input_target", {"input": "a", "output": "b"})[0] == [turns("a", "b")]


def test_samsum() -> None:
    record = {"id": "1", "dialogue": "A: hi\r\nB: hi", "summary": "They greet."}
    assert read("dialogue", record) == ([turns("A: hi\r\nB: hi", "They greet.")], {"id": 1})


def test_jfleg_is_a_record_for_each_correction() -> None:
    record = {"sentence": "He go .", "corrections": ["He goes .", "", " ", "He went ."]}
    found, lost = read("jfleg", record, fix_spacing=True)
    assert found == [turns("He go.", "He goes."), turns("He go.", "He went.")]
    assert lost == {"empty corrections": 1}


@pytest.mark.parametrize(
    ("format", "record", "expected"),
    [
        ("jfleg", {"sentence": "a", "corrections": ["", ""]}, "no correction that is not empty"),
        ("jfleg", {"sentence": "a", "corrections": "b"}, "corrections is the text 'b', not a list"),
        ("jfleg", {"sentence": "a", "corrections": ["b", 3]}, "corrections[1] is the number 3, not text"),
        ("dialogue", {"dialogue": "a", "summary": " "}, "summary is empty"),
        ("input_target", {"input": "a"}, "wanted: input and target (optional system, tools)"),
        ("prompt_response", {"prompt": ["a"], "response": "b"}, "prompt is a list, not text"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["q"]]}, "history 1 is not a pair"),
        ("alpaca", {"instruction": "a", "output": "b", "system": 3}, "system is the number 3, not text"),
    ],
)
def test_what_is_wrong_is_named(format: Any, record: dict[str, Any], expected: str) -> None:
    assert expected in reason(format, record)


def test_named_columns_that_are_not_there_are_named() -> None:
    columns = {"prompt": "ask", "response": "reply"}
    told = reason("prompt_response", {"ask": "a", "answer": "b"}, columns=columns)
    assert "found ask, answer; wanted: ask and reply" in told
