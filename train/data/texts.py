"""The texts that a record holds: everything that a reader would miss if a chat template left it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]  # {"role", "content", "tool_calls"?, "reasoning_content"?}
Tool = Mapping[str, Any]  # {"type": "function", "function": {"name", "description", "parameters"}}
#: (kind, text) -> what to put in its place.
Replace = Callable[[str, str], str]

REASONING = "reasoning"
_KINDS = {"system": "system text", "user": "user's text", "assistant": "answer", "tool": "tool's answer"}
_MARK = "\ue0f2"  # private use: stands for a text in a shape

#: A record without its texts: the roles of plain messages and whether they have content, or JSON.
Shape = tuple[tuple[str, bool], ...] | str


def map_texts(
    messages: Sequence[Message], tools: Sequence[Tool] | None, replace: Replace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """A copy with each text that is not empty replaced, in a fixed order."""

    def swap(kind: str, text: Any) -> Any:
        return replace(kind, text) if isinstance(text, str) and text else text

    def call(each: Mapping[str, Any]) -> dict[str, Any]:
        inner = each.get("function", each)
        new = {**inner, "name": swap("tool call", inner.get("name"))}
        if "arguments" in inner:
            new["arguments"] = _leaves(inner["arguments"], lambda text: swap("tool call", text))
        return {**each, "function": new} if "function" in each else new

    def message(each: Message) -> dict[str, Any]:
        new = dict(each)
        calls = each.get("tool_calls")
        kind = "text beside a tool call" if calls else _KINDS.get(each["role"], "text")
        if "reasoning_content" in each:
            new["reasoning_content"] = swap(REASONING, each["reasoning_content"])
        new["content"] = swap(kind, each.get("content"))
        if calls:
            new["tool_calls"] = [call(one) for one in calls]
        return new

    mapped = [message(each) for each in messages]
    return mapped, [_tool(each, swap) for each in tools] if tools else None


def _tool(tool: Tool, swap: Callable[[str, Any], Any]) -> dict[str, Any]:
    inner = tool.get("function", tool)
    new = dict(inner)
    for key in ("name", "description"):
        if key in inner:
            new[key] = swap("tool", inner[key])
    if "parameters" in inner:
        new["parameters"] = _descriptions(inner["parameters"], lambda text: swap("tool", text))
    return {**tool, "function": new} if "function" in tool else new


def _leaves(value: Any, swap: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _leaves(item, swap) for key, item in value.items()}
    return [_leaves(item, swap) for item in value] if isinstance(value, list | tuple) else swap(value)


def _descriptions(schema: Any, swap: Callable[[Any], Any]) -> Any:
    """The descriptions within a JSON schema (`properties` may hold a parameter of that name)."""
    if isinstance(schema, Mapping):
        return {
            key: swap(item) if key == "description" and isinstance(item, str) else _descriptions(item, swap)
            for key, item in schema.items()
        }
    return [_descriptions(item, swap) for item in schema] if isinstance(schema, list | tuple) else schema


def shape_of(messages: Sequence[Message], tools: Sequence[Tool] | None) -> tuple[Shape, list[str]]:
    """The record's shape, which records of other words share, and its texts in order, none of them empty."""
    if not tools and all(message.keys() == {"role", "content"} for message in messages):
        contents = [message["content"] for message in messages]
        shape = tuple([(message["role"], bool(message["content"])) for message in messages])
        return shape, [content for content in contents if content]
    texts: list[str] = []

    def take(kind: str, text: str) -> str:
        texts.append(text)
        return _MARK

    return json.dumps(map_texts(messages, tools, take), ensure_ascii=False), texts


def fill_shape(
    shape: Shape, text: Callable[[int], str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None, list[str]]:
    """Messages and tools of the shape with `text(n)` as the n-th text, and the texts' kinds."""
    kinds: list[str] = []

    def put(kind: str, mark: str) -> str:
        if mark != _MARK:
            return mark
        kinds.append(kind)
        return text(len(kinds) - 1)

    if isinstance(shape, str):
        messages, tools = json.loads(shape)
    else:
        messages = [{"role": role, "content": _MARK if filled else ""} for role, filled in shape]
        tools = None
    return *map_texts(messages, tools, put), kinds


def kinds_and_texts(messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[tuple[str, str]]:
    """Each text with its kind; the reasoning that a content holds between `<think>` tags apart."""
    found: list[tuple[str, str]] = []

    def take(kind: str, text: str) -> str:
        thoughts, closing, words = text.rpartition("</think>")
        if closing and kind in ("answer", "text beside a tool call"):
            found.append((REASONING, thoughts.replace("<think>", "").strip()))
            found.append((kind, words))
        else:
            found.append((kind, text))
        return text

    map_texts(messages, tools, take)
    return found
