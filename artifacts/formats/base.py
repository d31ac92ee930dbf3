"""What all record formats share: the canonical record, and the reason why there is none."""

from __future__ import annotations

from collections import Counter
from typing import Any

Message = dict[str, Any]
#: A canonical record: `{"messages": […]}`, perhaps with `tools`, or `{"text": …}` (`DataParams`).
Record = dict[str, Any]
#: What of the records is not passed on: a column's name or what else it is, to the records that had it.
Lost = Counter[str]


class RecordError(ValueError):
    """The record can't be used; the message says why, in one line."""


def describe(value: object) -> str:
    """A JSON value in a word or two, for reasons."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"[:60]
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    return "a list" if isinstance(value, list) else "an object"


def text(value: object, name: str) -> str:
    """`value`, which is text that is not blank. Raises RecordError."""
    if not isinstance(value, str):
        raise RecordError(f"{name} is {describe(value)}, not text")
    if not value or value.isspace():
        raise RecordError(f"{name} is empty")
    return value


def optional_text(record: Record, name: str) -> str:
    """The text of a column; "" where there is none. Raises RecordError."""
    value = record.get(name)
    return "" if value is None or value == "" else text(value, name)


def refuse_unprintable(content: str, name: str) -> None:
    """Raises RecordError for what no file of text can hold: NUL, half a surrogate pair."""
    if "\0" in content:
        raise RecordError(f"{name} holds a NUL character")
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError as error:
            lone = f"\\u{ord(content[error.start]):04x}"
            raise RecordError(f"{name} holds a lone surrogate ({lone}), which is no character") from None
