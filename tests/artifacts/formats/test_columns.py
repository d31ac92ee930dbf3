from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Reading
from artifacts.formats import columns_reason, detect_format
from artifacts.formats.columns import (
    FORMATS,
    NAMES,
    REQUIRED,
    json_columns,
    readable_columns,
    unused,
)
from artifacts.records import RecordFile


@pytest.mark.parametrize(
    ("columns", "format"),
    [
        ("messages tools", "messages"),
        ("id conversations", "conversations"),
        ("instruction input output", "alpaca"),
        ("instruction response context", "prompt_response"),
        ("prompt response", "prompt_response"),
        ("question answer", "prompt_response"),
        ("id dialogue summary", "dialogue"),
        ("input target", "input_target"),
        ("input output", "input_target"),
        ("sentence corrections", "jfleg"),
        ("text meta", "text"),
        ("prompt chosen rejected", None),
        ("", None),
    ],
)
def test_columns_tell_the_format(columns: str, format: str | None) -> None:
    assert detect_format(columns.split()) == format


@pytest.mark.parametrize(
    ("record", "columns", "format"),
    [
        ({"text": "### Human: a### Assistant: b"}, {}, "turns"),
        ({"text": "Humans: a"}, {}, "text"),
        ({"chat": [{"from": "human", "value": "a"}]}, {"messages": "chat"}, "conversations"),
        ({"chat": [{"role": "user", "content": "a"}]}, {"messages": "chat"}, "messages"),
        ({"ask": "a", "reply": "b"}, {"prompt": "ask", "response": "reply"}, "prompt_response"),
        ({"body": "a"}, {"text": "body"}, "text"),
        ({"prompt": "a", "reply": "b"}, {"response": "reply"}, "prompt_response"),
        ({"ask": "a", "output": "b"}, {"prompt": "ask"}, "alpaca"),
        ({"instruction": "a", "output": "b", "past": []}, {"history": "past"}, "alpaca"),
    ],
)
def test_words_and_given_names_tell_it(record: Any, columns: dict[str, str], format: str) -> None:
    assert detect_format(record, Reading(columns=columns)) == format


def test_what_a_format_has_no_use_for_is_told(tmp_path: Path) -> None:
    reading = Reading(columns={"prompt": "ask", "system": "who"}, tags={"role_tag": "r"}, instruction="Do: ")
    assert unused("messages", reading) == ["columns.prompt", "tags", "instruction"]
    assert unused("alpaca", reading) == ["tags"]
    assert unused("conversations", Reading(columns={"query": ""}, tags={"role_tag": "r"})) == []
    (tmp_path / "a.txt").write_text("a")
    said = RecordFile(tmp_path / "a.txt", "text", Reading(instruction="Do: ")).said
    assert said.endswith("format text, which has no use for instruction")


def test_every_format_has_its_names() -> None:
    assert set(NAMES) == set(REQUIRED) == set(FORMATS)
    for format in FORMATS:
        assert set(REQUIRED[format]) <= set(NAMES[format])


def test_reasons_name_the_nearest_column() -> None:
    assert "did you mean 'instruction' instead of 'instrction'?" in columns_reason(["instrction", "output"])
    assert "preference" in columns_reason(["prompt", "chosen", "rejected"])


def test_columns_that_tables_read() -> None:
    reading = Reading(columns={"prompt": "ask", "history": "past", "query": ""})
    assert {"messages", "ask", "past", "corrections", "answer"} <= readable_columns(None, reading)
    assert "" not in readable_columns(None, reading)
    assert "messages" not in readable_columns("alpaca", reading)
    assert {"past", "history", "messages"} <= json_columns(reading) and "ask" not in json_columns(reading)
