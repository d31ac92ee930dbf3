"""`conversations`: `[{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]`, as ShareGPT, Qwen's
guide and LLaMA-Factory write it, with `function_call` and `observation` turns.

A call beside or behind the assistant's words becomes part of that message, as chat templates take it.
"""

from __future__ import annotations

import difflib
from typing import Any

from artifacts.contract import Reading
from artifacts.formats.base import Lost, Message, Record, RecordError, describe
from artifacts.formats.columns import Columns
from artifacts.formats.messages import conversation
from artifacts.formats.tools import read_calls

#: What a turn can be from. A `function_call` is the assistant's.
SENDERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_call": "function_call",
}
#: `Reading.tags` that name a role, and which.
TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
    "function_tag": "function_call",
}
_PLACES = (("from", "value"), ("role", "content"))


def read_conversations(record: Record, columns: Columns, reading: Reading, lost: Lost) -> Record:
    """A record of the format `conversations`. Raises RecordError."""
    name = columns.messages
    turns = record[name]
    if not isinstance(turns, list):
        raise RecordError(f"{name} is {describe(turns)}, not a list")
    if not turns:
        raise RecordError(f"{name} is an empty list")
    senders = {**SENDERS, **{reading.tags[tag]: role for tag, role in TAGS.items() if reading.tags.get(tag)}}
    messages: list[Message] = []
    for position, turn in enumerate(turns, 1):
        message = _message(turn, position, senders, reading, lost)
        if messages and _continues(messages[-1], message):
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
    return conversation(messages, record, columns, lost)


def _message(
    turn: object, position: int, senders: dict[str, str], reading: Reading, lost: Lost
) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RecordError(f"message {position}: not an object but {describe(turn)}")
    sender_name, content_name = _places(turn, reading)
    if sender_name not in turn or content_name not in turn:
        lacking = [name for name in (sender_name, content_name) if name not in turn]
        found = ", ".join(str(name)[:40] for name in list(turn)[:8])
        raise RecordError(f"message {position}: no {' and no '.join(lacking)}; found {found or 'nothing'}")
    sender = turn[sender_name]
    if not isinstance(sender, str) or sender not in senders:
        raise RecordError(f"message {position}: {_sender_reason(sender, senders)}")
    rest = {key: value for key, value in turn.items() if key not in (sender_name, content_name)}
    if senders[sender] == "function_call":
        calls = read_calls(turn[content_name], f"message {position} ({sender})", lost)
        return {"role": "assistant", "content": "", "tool_calls": calls, **rest}
    return {"role": senders[sender], "content": turn[content_name], **rest}


def _places(turn: dict[str, Any], reading: Reading) -> tuple[str, str]:
    """The names of a turn's sender and words."""
    given = reading.tags.get("role_tag"), reading.tags.get("content_tag")
    sender, content = next((pair for pair in _PLACES if pair[0] in turn), _PLACES[0])
    return given[0] or sender, given[1] or content


def _continues(before: Message, message: Message) -> bool:
    """Whether a call belongs to the assistant's turn before it."""
    return before["role"] == "assistant" == message["role"] and bool(message.get("tool_calls"))


def _joined(before: Message, call: Message) -> Message:
    return {
        **before,
        **call,
        "content": before["content"],
        "tool_calls": [*before.get("tool_calls", []), *call["tool_calls"]],
    }


def _sender_reason(sender: object, senders: dict[str, str]) -> str:
    shown = repr(sender[:40]) if isinstance(sender, str) else describe(sender)
    near = difflib.get_close_matches(str(sender).lower(), senders, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown role {shown}; roles are {', '.join(senders)}{hint}"
