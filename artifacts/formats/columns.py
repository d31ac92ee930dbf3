"""Which columns each format reads, and which format a record's columns are of.

A column is named by its role (prompt, response, …, as LLaMA-Factory's `dataset_info.json` names them); each
format has names of its own for its roles, which `Reading.columns` overrides.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import get_args

from artifacts.contract import Reading, RecordFormat

FORMATS: tuple[RecordFormat, ...] = get_args(RecordFormat)
#: Roles that `Reading.columns` can name.
ROLES = ("prompt", "query", "response", "history", "system", "tools", "messages", "text")

_OPTIONAL = {"system": "system", "tools": "tools"}
_HISTORY = {**_OPTIONAL, "history": "history"}
#: Names of each format's columns by role. `prompt_response` has several pairs, see PAIRS.
NAMES: dict[RecordFormat, dict[str, str]] = {
    "messages": {"messages": "messages", **_OPTIONAL},
    "conversations": {"messages": "conversations", **_OPTIONAL},
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output", **_HISTORY},
    "prompt_response": {"prompt": "prompt", "response": "response", **_HISTORY},
    "text": {"text": "text"},
    "turns": {"text": "text"},
    "dialogue": {"prompt": "dialogue", "response": "summary", **_OPTIONAL},
    "input_target": {"prompt": "input", "response": "target", **_OPTIONAL},
    "jfleg": {"prompt": "sentence", "response": "corrections", **_OPTIONAL},
    "custom": {},
}
REQUIRED: dict[RecordFormat, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("messages",),
    "alpaca": ("prompt", "response"),
    "prompt_response": ("prompt", "response"),
    "text": ("text",),
    "turns": ("text",),
    "dialogue": ("prompt", "response"),
    "input_target": ("prompt", "response"),
    "jfleg": ("prompt", "response"),
    "custom": (),
}
#: Other names of a format's question and answer: those of public data sets.
PAIRS: dict[RecordFormat, tuple[tuple[str, str], ...]] = {
    "prompt_response": (
        ("prompt", "response"),
        ("prompt", "completion"),  # OpenAI's and TRL's
        ("question", "answer"),
        ("query", "response"),
        ("instruction", "response"),  # databricks-dolly
        ("content", "summary"),  # ADGEN, as ChatGLM's P-tuning guide reads it
    ),
    "input_target": (("input", "target"), ("input", "output")),  # the latter is c4_200m
}
#: The order in which a record's columns are held against the formats.
_ORDER: tuple[RecordFormat, ...] = (
    "messages",
    "conversations",
    "alpaca",
    "jfleg",
    "dialogue",
    "prompt_response",
    "input_target",
    "text",
)
_TURN = "### Human:"
_WANTED = (
    "messages; conversations; instruction and output (optional input, system, history); prompt and response; "
    "text; or name them in data: prompt_column, response_column"
)
_HINTS = {
    "chosen": "preference pairs ('chosen', 'rejected') are for preference training, which is not done here",
    "image": "images are not learnt from: leave text records alone",
}


class Columns:
    """The names that one file has for a format's roles; settled by its first record."""

    def __init__(self, format: RecordFormat, reading: Reading, record: Collection[str]) -> None:
        names = dict(NAMES[format])
        given = {role: name for role, name in reading.columns.items() if role in names}
        for prompt, response in PAIRS.get(format, ()):
            pair = {"prompt": prompt, "response": response} | given
            if pair["prompt"] in record and pair["response"] in record:
                names |= pair
                break
        by_role = {role: name for role, name in {**names, **given}.items() if name}
        self.known = frozenset(by_role.values())
        self.required = [by_role[role] for role in REQUIRED[format] if role in by_role]
        self._needed = frozenset(self.required)
        # The names; "" where the file has no such column.
        self.prompt, self.query = by_role.get("prompt", ""), by_role.get("query", "")
        self.response, self.history = by_role.get("response", ""), by_role.get("history", "")
        self.system, self.tools = by_role.get("system", ""), by_role.get("tools", "")
        self.messages, self.text = by_role.get("messages", ""), by_role.get("text", "")

    def are_in(self, record: Collection[str]) -> bool:
        """Whether a record has all that is needed."""
        return self._needed.issubset(record)


def detect_format(
    columns: Collection[str] | Mapping[str, object], reading: Reading | None = None
) -> RecordFormat | None:
    """The format whose required columns are all there. Of a record (not just its columns) also the text is
    looked at."""
    reading = reading or Reading()
    is_named = any(reading.columns.get(role) for role in REQUIRED["prompt_response"])
    for format in ("prompt_response", *_ORDER) if is_named else _ORDER:
        if _fits(format, columns, reading):
            text = columns.get(_text_column(reading)) if isinstance(columns, Mapping) else None
            has_turns = format == "text" and isinstance(text, str) and text.lstrip().startswith(_TURN)
            return "turns" if has_turns else format
    return None


def _fits(format: RecordFormat, columns: Collection[str], reading: Reading) -> bool:
    given = reading.columns
    if any(given.get(role) == "" for role in REQUIRED[format]):
        return False
    settled = Columns(format, reading, columns)
    if format not in ("messages", "conversations"):
        return settled.are_in(columns)
    if "messages" not in given:
        return settled.required[0] in columns
    # One name for two formats: what the messages look like decides.
    messages = columns.get(given["messages"]) if isinstance(columns, Mapping) else None
    first = messages[0] if isinstance(messages, list) and messages else None
    is_openai = isinstance(first, dict) and "role" in first and "content" in first
    return given["messages"] in columns and is_openai == (format == "messages")


def _text_column(reading: Reading) -> str:
    return reading.columns.get("text") or NAMES["text"]["text"]


def readable_columns(format: RecordFormat | None, reading: Reading) -> set[str]:
    """All names that may be read (None: by whatever format is detected)."""
    formats = [format] if format else list(FORMATS)
    names = {name for each in formats for name in NAMES[each].values()}
    names |= {name for each in formats for pair in PAIRS.get(each, ()) for name in pair}
    return names | {name for name in reading.columns.values() if name}


def json_columns(reading: Reading) -> set[str]:
    """Columns whose cells, where a file has text alone, hold JSON."""
    own = {"messages", "conversations", "history", "tools", "corrections"}
    return own | {
        reading.columns[role] for role in ("messages", "history", "tools") if role in reading.columns
    }


def unused(format: RecordFormat, reading: Reading) -> list[str]:
    """What of `reading` the format has no use for, by the names of the job's fields."""
    found = [
        f"columns.{role}" for role, name in reading.columns.items() if name and role not in NAMES[format]
    ]
    if reading.tags and format != "conversations":
        found.append("tags")
    if reading.instruction and "prompt" not in NAMES[format]:
        found.append("instruction")
    return found


def columns_reason(
    columns: Iterable[str], format: RecordFormat | None = None, settled: Columns | None = None
) -> str:
    """Why these columns are not `format` (None: none at all), with the nearest known name or a hint."""
    found = [str(name) for name in columns]
    shown = ", ".join(name[:40] for name in found[:12]) + (", …" if len(found) > 12 else "")
    wanted = _WANTED if format is None else _wanted(format, settled or Columns(format, Reading(), found))
    reason = f"wrong columns: found {shown or 'none'}; wanted: {wanted}"
    if format and (other := detect_format(found)) and other != format:
        return f"{reason}; this record is of the format {other}, the file is read as {format}"
    return reason + "".join(f"; {hint}" for hint in list(_hints(found))[:1])


def _wanted(format: RecordFormat, settled: Columns) -> str:
    optional = [name for name in NAMES[format].values() if name in settled.known - {*settled.required}]
    return " and ".join(settled.required) + (f" (optional {', '.join(optional)})" if optional else "")


def _hints(found: list[str]) -> Iterator[str]:
    yield from (hint for name, hint in _HINTS.items() if name in found)
    for column in ("messages", "conversations", "instruction", "output", "prompt", "response"):
        near = difflib.get_close_matches(column, [name for name in found if name != column], n=1, cutoff=0.7)
        if near and column not in found:
            yield f"did you mean '{column}' instead of '{near[0][:40]}'?"
