"""Conversations as they are learnt from: `{"messages": [{"role", "content"}, …]}`, roles system, user,
assistant and tool, in an order that makes sense.

A message may also hold `tool_calls` (or OpenAI's older `function_call`), `reasoning_content` (`reasoning`,
`thinking`) and whether it is learnt (`train`, `loss` or OpenAI's `weight`).
"""

from __future__ import annotations

import difflib
from typing import Any

from artifacts.formats.base import Lost, Message, Record, RecordError, describe, refuse_unprintable
from artifacts.formats.columns import Columns
from artifacts.formats.tools import read_calls, read_tools

ROLES = ("system", "user", "assistant", "tool")
# Which role may follow which; None is the start.
_NEXT: dict[str | None, frozenset[str]] = {
    None: frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"user", "assistant"}),
    "assistant": frozenset({"user", "assistant", "tool"}),
    "tool": frozenset({"user", "assistant", "tool"}),
}
_OTHER_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "developer": "system",
}
_REASONING = ("reasoning_content", "reasoning", "thinking")
_LEARNT = ("train", "loss", "weight")
_READ = frozenset({"role", "content", "tool_calls", "function_call", *_REASONING, *_LEARNT})


def read_messages(record: Record, columns: Columns, lost: Lost) -> Record:
    """A record of the format `messages`. Its own list is passed on where that is canonical already."""
    return conversation(record[columns.messages], record, columns, lost)


def conversation(messages: object, record: Record, columns: Columns, lost: Lost) -> Record:
    """The canonical record of `messages` and of the record's columns for system and tools. Raises
    RecordError."""
    system = record.get(columns.system)
    if system and isinstance(messages, list):
        if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system":
            raise RecordError(f"two system messages: message 1 and the column '{columns.system}'")
        messages = [{"role": "system", "content": system}, *messages]
    found: Record = {"messages": messages if is_plain(messages) else canonical_messages(messages, lost)}
    tools = record.get(columns.tools)
    if tools and tools != "[]":
        found["tools"] = read_tools(tools, columns.tools)
    return found


def is_plain(messages: object) -> bool:
    """Whether these are sound messages of role and content alone, as most are, in one quick pass."""
    if type(messages) is not list:
        return False
    previous = None
    try:
        for message in messages:
            role, content = message["role"], message["content"]
            if type(content) is not str or not content or content.isspace() or role not in _NEXT[previous]:
                return False
            if len(message) > 2 or "\0" in content:
                return False
            if not content.isascii():
                content.encode()
            previous = role
    except (TypeError, KeyError, IndexError, UnicodeEncodeError):
        return False
    return previous == "assistant"


def canonical_messages(messages: object, lost: Lost) -> list[Message]:
    """Messages with what is learnt from alone, checked one by one. Raises RecordError."""
    if not isinstance(messages, list):
        raise RecordError(f"messages is {describe(messages)}, not a list")
    found: list[Message] = []
    previous: str | None = None
    for position, message in enumerate(messages, 1):
        found.append(_message(message, position, previous, lost))
        previous = found[-1]["role"]
    if previous is None:
        raise RecordError("messages is an empty list")
    if previous != "assistant":
        raise RecordError(_ending_reason(found, previous))
    if all(message.get("train") is False for message in found if message["role"] == "assistant"):
        raise RecordError("every assistant message says train: false: nothing to learn")
    return found


def _message(message: object, position: int, previous: str | None, lost: Lost) -> Message:
    if not isinstance(message, dict) or "role" not in message or not _may_lack_content(message):
        raise RecordError(f"message {position}: {_missing(message)}")
    role = message["role"]
    where = f"message {position} ({str(role)[:20]})"
    calls = message.get("tool_calls") or message.get("function_call")
    if calls and role != "assistant" and role in ROLES:
        raise RecordError(f"{where}: tool_calls are the assistant's")
    content = _content(message, where, optional=bool(calls) or role in ("system", "tool"))
    if type(role) is not str or role not in _NEXT[previous]:
        raise RecordError(f"message {position}: {_order_reason(role, previous)}")
    found: Message = {"role": role, "content": content}
    if calls:
        name = "tool_calls" if message.get("tool_calls") else "function_call"
        found["tool_calls"] = read_calls(calls, f"{where}: {name}", lost)
    if reasoning := _reasoning(message, where, lost):
        found["reasoning_content"] = reasoning
    if not _is_learnt(message, where, lost):
        found["train"] = False
    lost.update(f"messages[].{key}" for key, value in message.items() if key not in _READ and value)
    return found


def _may_lack_content(message: dict[str, Any]) -> bool:
    return "content" in message or bool(message.get("tool_calls") or message.get("function_call"))


def _content(message: dict[str, Any], where: str, *, optional: bool) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if content is None and optional:
        content = ""
    if not isinstance(content, str):
        raise RecordError(f"{where}: content is {describe(content)}, not text")
    if (not content or content.isspace()) and not optional:
        raise RecordError(f"{where}: content is empty")
    refuse_unprintable(content, f"{where}: content")
    return content


def _part(part: object, where: str) -> str:
    """The text of one part of a content in parts."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else describe(part)
    raise RecordError(f"{where}: content holds a part of type {str(kind)[:30]!r}; only text is learnt from")


def _reasoning(message: dict[str, Any], where: str, lost: Lost) -> str:
    names = [name for name in _REASONING if message.get(name)]
    if not names:
        return ""
    lost.update(f"messages[].{name}" for name in names[1:])
    reasoning = message[names[0]]
    if not isinstance(reasoning, str):
        raise RecordError(f"{where}: {names[0]} is {describe(reasoning)}, not text")
    if message["role"] != "assistant":
        raise RecordError(f"{where}: {names[0]} is the assistant's")
    refuse_unprintable(reasoning, f"{where}: {names[0]}")
    return reasoning


def _is_learnt(message: dict[str, Any], where: str, lost: Lost) -> bool:
    for name in _LEARNT:
        value = message.get(name)
        if value is None:
            continue
        if value not in (0, 1):
            raise RecordError(f"{where}: {name} is {describe(value)}, not true or false")
        if value and message["role"] != "assistant":
            lost[f"messages[].{name}"] += 1
        return bool(value)
    return True


def _missing(message: object) -> str:
    if not isinstance(message, dict):
        return f"not an object but {describe(message)}"
    if "from" in message and "value" in message:
        return "from/value are ShareGPT's names; use role/content, or write format: conversations"
    lacking = [name for name in ("role", "content") if name not in message]
    found = ", ".join(str(name)[:40] for name in list(message)[:8])
    return f"no {' and no '.join(lacking)}; found {found or 'nothing'}"


def _order_reason(role: object, previous: str | None) -> str:
    if not isinstance(role, str) or role not in ROLES:
        near = difflib.get_close_matches(str(role).lower(), ROLES, n=1, cutoff=0.6)
        known = near[0] if near else _OTHER_NAMES.get(str(role).lower())
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
