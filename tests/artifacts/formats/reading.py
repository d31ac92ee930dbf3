"""Records through a format, for tests."""

from __future__ import annotations

from typing import Any

import pytest

from artifacts.contract import Reading, RecordFormat
from artifacts.formats import Lost, RecordError, RecordReader


def read(format: RecordFormat, *records: Any, **reading: Any) -> tuple[list[dict[str, Any]], Lost]:
    """(canonical records, what was not passed on)."""
    reader = RecordReader(format, Reading(**reading))
    return [found for record in records for found in reader.read(record)], reader.lost


def reason(format: RecordFormat, record: Any, **reading: Any) -> str:
    """Why the record is refused."""
    with pytest.raises(RecordError) as refused:
        read(format, record, **reading)
    return str(refused.value)


def turns(*words: str, **more: Any) -> dict[str, Any]:
    """A record of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(words)]
    return {"messages": messages, **more}
