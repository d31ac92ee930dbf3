"""The record formats: one parsed record in, one conversation out, or the reason why not.

`messages`: `{"messages": [{"role", "content"}, …]}`, roles system, user, assistant, tool. `alpaca`:
`{"instruction", "input", "output", "system", "history": [[question, answer], …]}`, of which instruction and
output are required (the format of Stanford Alpaca with the two columns that LLaMA-Factory added).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from json.encoder import encode_basestring
from typing import Any

from artifacts.contract import RecordFormat

Message = dict[str, str]

FORMATS: tuple[RecordFormat, ...] = ("messages", "alpaca")
ROLES = ("system", "user", "assistant", "tool")
_WANTED: dict[RecordFormat, str] = {
    "messages": "messages",
    "alpaca": "instruction and output (optional input, system, history)",
}

_ANY = ", or ".join(_WANTED.values())

_COLUMNS: dict[RecordFormat, Collection[str]] = {
    "messages": ("messages",),
    "alpaca": ("instruction", "input", "output", "system", "history"),
}
_CONTROL = bytes(range(0x20))
# Which role may follow which; None is the start.
_NEXT: dict[str | None, frozenset[str]] = {
    None: frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"user", "assistant"}),
    "assistant": frozenset({"user", "assistant", "tool"}),
    "tool": frozenset({"user", "assistant", "tool"}),
}
# Columns of other formats, which people try first.
_HINTS = {
    "conversations": "'conversations' is ShareGPT's: rename it to messages, from/value to role/content",
    "text": "'text' is for pre-training: split it into instruction and output",
    "prompt": "rename 'prompt' to instruction and the answer's column to output",
    "question": "rename 'question' to instruction and the answer's column to output",
    "query": "rename 'query' to instruction and 'response' to output",
}


class RecordError(ValueError):
    """The record can't be used; the message says why, in one line."""


def detect_format(columns: Collection[str]) -> RecordFormat | None:
    """The format whose required columns are all there."""
    if "messages" in columns:
        return "messages"
    return "alpaca" if "instruction" in columns and "output" in columns else None


def conversation(record: object, format: RecordFormat) -> list[Message]:
    """The record's messages, checked. Raises RecordError."""
    if type(record) is not dict:
        raise RecordError(f"not an object but {describe(record)}; each record is an object with {_ANY}")
    if format == "messages":
        if "messages" not in record:
            raise RecordError(columns_reason(record, format))
        return _check(record["messages"])
    return _check(_messages_of_alpaca(record))


def ignored_columns(record: Collection[str], format: RecordFormat) -> list[str]:
    """Columns that the format has no use for."""
    return [name for name in record if name not in _COLUMNS[format]]


def encode_record(messages: Iterable[Message]) -> bytes:
    """The canonical line of a conversation, UTF-8, without a newline."""
    turns = [
        b'{"role":"%b","content":%b}' % (message["role"].encode(), _encode_text(message["content"]))
        for message in messages
    ]
    return b'{"messages":[%b]}' % b",".join(turns)


def _encode_text(text: str) -> bytes:
    """A JSON string. Twice as fast as json's encoder for text without control characters but newlines."""
    raw = text.encode()
    if len(raw.translate(None, _CONTROL)) != len(raw) - raw.count(b"\n"):
        return encode_basestring(text).encode()
    return b'"%b"' % raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")


def columns_reason(columns: Iterable[str], format: RecordFormat | None = None) -> str:
    """Why these columns are not `format` (None: neither format), with the nearest known name or a hint."""
    import difflib

    found = [str(name) for name in columns]
    shown = ", ".join(name[:40] for name in found[:12]) + (", …" if len(found) > 12 else "")
    wanted = _WANTED[format] if format else _ANY
    reason = f"wrong columns: found {shown or 'none'}; wanted: {wanted}"
    if other := detect_format(found):
        return f"{reason}; this record is of the format {other}, the file is read as {format}"
    for name in found:
        if name in _HINTS:
            return f"{reason}; {_HINTS[name]}"
    for column in ("messages", "instruction", "output"):
        near = difflib.get_close_matches(column, [name for name in found if name != column], n=1, cutoff=0.7)
        if near and column not in found:
            return f"{reason}; did you mean '{column}' instead of '{near[0][:40]}'?"
    return reason


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


def _messages_of_alpaca(record: dict[str, Any]) -> list[Message]:
    if "instruction" not in record or "output" not in record:
        raise RecordError(columns_reason(record, "alpaca"))
    messages = []
    if system := _optional_text(record, "system"):
        messages.append({"role": "system", "content": system})
    history = record.get("history") or []
    if not isinstance(history, list):
        raise RecordError(f"history is {describe(history)}, not a list of pairs [question, answer]")
    for position, turn in enumerate(history, 1):
        if not (isinstance(turn, list) and len(turn) == 2):
            raise RecordError(f"history {position} is not a pair [question, answer] but {describe(turn)}")
        messages += (
            {"role": "user", "content": _text(turn[0], f"history {position}: question")},
            {"role": "assistant", "content": _text(turn[1], f"history {position}: answer")},
        )
    question, addition = _text(record["instruction"], "instruction"), _optional_text(record, "input")
    messages += (
        {"role": "user", "content": f"{question}\n{addition}" if addition else question},
        {"role": "assistant", "content": _text(record["output"], "output")},
    )
    return messages


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{name} is {describe(value)}, not text")
    if not value or value.isspace():
        raise RecordError(f"{name} is empty")
    return value


def _optional_text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None or value == "":
        return ""
    return _text(value, name)


def _check(messages: object) -> list[Message]:
    """`messages` with role and content alone. The turns' order is checked against `_NEXT`."""
    if not isinstance(messages, list):
        raise RecordError(f"messages is {describe(messages)}, not a list")
    previous = None
    plain = True
    for position, message in enumerate(messages, 1):
        try:
            role, content = message["role"], message["content"]
        except (TypeError, KeyError, IndexError):
            raise RecordError(f"message {position}: {_missing(message)}") from None
        if type(content) is not str or not content or content.isspace():
            raise RecordError(f"message {position} ({str(role)[:20]}): {_content_reason(message)}")
        if type(role) is not str or role not in _NEXT[previous]:
            raise RecordError(f"message {position}: {_order_reason(role, previous)}")
        if "\0" in content:
            raise RecordError(f"message {position} ({role}): content holds a NUL character")
        if not content.isascii():
            _refuse_surrogates(content, position)
        if len(message) > 2:
            plain = False
            if message.get("tool_calls") or message.get("function_call"):
                raise RecordError(
                    f"message {position} ({role}): tool_calls are not supported; write the call as content"
                )
        previous = role
    if previous is None:
        raise RecordError("messages is an empty list")
    if previous != "assistant":
        raise RecordError(_ending_reason(messages, previous))
    if plain:
        return messages
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _missing(message: object) -> str:
    if not isinstance(message, dict):
        return f"not an object but {describe(message)}"
    if "from" in message and "value" in message:
        return "from/value are ShareGPT's names; use role/content"
    lacking = [name for name in ("role", "content") if name not in message]
    found = ", ".join(str(name)[:40] for name in list(message)[:8])
    return f"no {' and no '.join(lacking)}; found {found or 'nothing'}"


def _content_reason(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return "content is empty"
    if content is None and (message.get("tool_calls") or message.get("function_call")):
        return "tool_calls are not supported; write the call as content"
    return f"content is {describe(content)}, not text"


def _order_reason(role: object, previous: str | None) -> str:
    if not isinstance(role, str) or role not in ROLES:
        import difflib

        near = difflib.get_close_matches(str(role).lower(), ROLES, n=1, cutoff=0.6)
        other = {
            "human": "user",
            "gpt": "assistant",
            "bot": "assistant",
            "model": "assistant",
            "function": "tool",
        }
        known = near[0] if near else other.get(str(role).lower())
        hint = f"; did you mean {known}?" if known else ""
        shown = repr(role[:40]) if isinstance(role, str) else describe(role)
        return f"unknown role {shown}; roles are {', '.join(ROLES)}{hint}"
    if role == "system":
        return "a second system message" if previous == "system" else "a system message must come first"
    if previous in (None, "system"):
        return f"{role} before any user message"
    return f"{role} right after {previous}"


def _ending_reason(messages: list[Message], last: str) -> str:
    if any(message["role"] == "assistant" for message in messages):
        return f"the last message is from {last}, not from the assistant"
    return "no assistant message: nothing to learn"


def _refuse_surrogates(content: str, position: int) -> None:
    try:
        content.encode()
    except UnicodeEncodeError as error:
        lone = f"\\u{ord(content[error.start]):04x}"
        raise RecordError(
            f"message {position}: content holds a lone surrogate ({lone}), which is no character"
        ) from None
