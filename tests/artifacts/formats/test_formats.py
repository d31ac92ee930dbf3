"""Each format's example file, through all of it: detected, read, written as lines that stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts.records import GoodRecord, RecordFile

EXAMPLES = Path(__file__).parents[2] / "data/formats"
GOLDEN = Path(__file__).parents[2] / "golden/formats"
FILES = {
    "messages.jsonl": "messages",
    "conversations.json": "conversations",
    "alpaca.json": "alpaca",
    "prompt_response.csv": "prompt_response",
    "text.jsonl": "text",
    "text.txt": "text",
    "turns.jsonl": "turns",
    "dialogue.jsonl": "dialogue",
    "input_target.csv": "input_target",
    "jfleg.jsonl": "jfleg",
    "custom.py": "custom",
}


def test_there_is_an_example_of_each() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_example_becomes_these_lines(name: str) -> None:
    """UPDATE_GOLDEN=1 writes them anew."""
    records = RecordFile(EXAMPLES / name)
    items = list(records)
    assert all(isinstance(item, GoodRecord) for item in items), items
    assert records.format == FILES[name] and f"format {FILES[name]} (detected)" in records.said
    lost = "".join(f"# not passed on: {what} ({count})\n" for what, count in sorted(records.lost.items()))
    text = lost + "".join(item.line.decode() + "\n" for item in items)
    golden = GOLDEN / f"{name}.lines"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
