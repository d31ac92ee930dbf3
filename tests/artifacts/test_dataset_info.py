from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.dataset_info import DatasetInfoError, Entry, find_entry, read_entries
from artifacts.records import GoodRecord, RecordFile

FOLDER = Path(__file__).parents[1] / "data/llama_factory"


def entry(name: str) -> Entry:
    return find_entry(FOLDER, read_entries(FOLDER), name)


def refusal(given: Any, name: str = "a") -> str:
    with pytest.raises(DatasetInfoError) as refused:
        find_entry(FOLDER, {"a": given}, name)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "format", "first"),
    [
        ("identity", "alpaca", {"messages": [("user", "hi"), ("assistant", "Hello! I am a small model.")]}),
        ("poems", "alpaca", {"messages": [("user", "sea"), ("assistant", "Waves roll.")]}),
        ("wiki", "text", {"text": "Rivers flow."}),
        (
            "tools",
            "conversations",
            {"messages": [("user", "Time?"), ("assistant", ""), ("tool", "12:00"), ("assistant", "Noon.")]},
        ),
    ],
)
def test_a_folder_of_llama_factory_is_read_as_it_is(name: str, format: str, first: dict[str, Any]) -> None:
    found = entry(name)
    item = next(iter(RecordFile(found.path, found.format, found.reading)))
    assert isinstance(item, GoodRecord) and found.format == format
    said = [(message["role"], message["content"]) for message in item.messages]
    assert ({"messages": said} if said else item.record) == first


def test_samples_limit_and_what_is_not_named_is_not_read() -> None:
    poems = entry("poems")
    assert poems.limit_records == 2
    records = RecordFile(poems.path, poems.format, poems.reading)
    assert all(isinstance(item, GoodRecord) for item in records) and records.lost == {"history": 3}


def test_openai_formatting_is_messages() -> None:
    found = find_entry(
        FOLDER, {"a": {"file_name": "a.json", "formatting": "openai", "columns": {"messages": "m"}}}, "a"
    )
    assert found.format == "messages" and found.reading.columns["messages"] == "m"
    assert found.reading.columns["system"] == ""


def test_keys_that_mean_nothing_here_are_told() -> None:
    assert find_entry(FOLDER, {"a": {"file_name": "a.json", "file_sha1": "…", "shiny": 1}}, "a").unused == (
        "shiny",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"file_name": "a.json", "ranking": True}, "is for preference training (ranking)"),
        ({"file_name": "a.json", "columns": {"prompt": "p", "kto_tag": "k"}}, "is for preference training"),
        ({"hf_hub_url": "org/name"}, "lies on a hub (hf_hub_url: org/name)"),
        ({"script_url": "x"}, "lies on a hub (script_url: x)"),
        ({"file_name": "a.json", "columns": {"messages": "m", "images": "i"}}, "has images; only text"),
        (
            {"file_name": "a.json", "formatting": "bert"},
            "formatting 'bert' is none of alpaca, sharegpt, openai",
        ),
        ({"file_name": "a.json", "columns": {"response": "r"}}, "columns names no prompt"),
        ({"file_name": "a.json", "columns": ["prompt"]}, "columns is no object"),
        (
            {"file_name": "a.json", "formatting": "sharegpt", "tags": {"who_tag": "w"}},
            "unknown tag 'who_tag'",
        ),
        ({"file_name": "a.json", "num_samples": 0}, "num_samples 0 is no number"),
        ({}, "has no file_name"),
        ("a.json", "is no object"),
    ],
)
def test_what_is_not_read_is_refused_with_its_reason(given: Any, expected: str) -> None:
    assert expected in refusal(given)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(DatasetInfoError, match=r"has no entry 'identiy'; did you mean identity\?"):
        entry("identiy")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "there is no dataset_info.json in it"),
        ("{", "is not JSON"),
        ("[]", "not an object"),
        (json.dumps({"builder_name": "json", "features": {}}), "is one of the library `datasets`"),
    ],
)
def test_a_file_that_is_none(content: str | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(DatasetInfoError, match=expected):
        read_entries(tmp_path)
