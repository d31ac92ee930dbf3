"""`text`, for continued pre-training, and `turns`: text that holds a conversation, as openassistant-guanaco's
`### Human: …### Assistant: …`."""

from __future__ import annotations

import re

from artifacts.formats.base import Lost, Message, Record, RecordError, refuse_unprintable, text
from artifacts.formats.columns import Columns
from artifacts.formats.messages import conversation

_MARK = re.compile(r"### (Human|Assistant|System):")
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}


def read_text(record: Record, columns: Columns) -> Record:
    """Raises RecordError."""
    name = columns.text
    content = text(record[name], name)
    refuse_unprintable(content, name)
    return {"text": content}


def read_turns(record: Record, columns: Columns, lost: Lost) -> Record:
    """The conversation in a text. What the user says last, without an answer, is left out and counted."""
    content = text(record[columns.text], columns.text)
    before, *parts = _MARK.split(content)
    if before.strip():
        raise RecordError(f"text before the first '### Human:': {before.strip()[:30]!r}")
    messages: list[Message] = [
        {"role": _ROLES[name], "content": words.strip()}
        for name, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    if not messages:
        raise RecordError(
            "no '### Human:' and '### Assistant:' in the text; write format: text to learn all of it"
        )
    if len(messages) > 1 and messages[-1]["role"] == "user":
        lost["last turn without an answer"] += 1
        del messages[-1]
    return conversation(messages, record, columns, lost)
