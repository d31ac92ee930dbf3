"""Calls of tools in an answer's text.

The format that is known is Hermes': `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, which Qwen's
templates (2.5 and 3) ask for as well. What is not of it, not JSON, or names no tool of the request stays
text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

_BEGIN, _END = "<tool_call>", "</tool_call>"


class CallReader:
    """Takes the calls out of an answer that comes in pieces. `tools`: those of the request; none: all is
    text."""

    def __init__(self, tools: Iterable[dict[str, Any]] | None) -> None:
        self._names = {tool["function"]["name"] for tool in tools or ()}
        self._held = ""  # may be the beginning of a call
        self.found = 0

    def feed(self, text: str, *, last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """The text that is none of a call, and the calls that are complete now."""
        if not self._names:
            return text, []
        self._held += text
        said, calls = "", []
        while (begin := self._held.find(_BEGIN)) >= 0 and (end := self._held.find(_END, begin)) >= 0:
            stop = end + len(_END)
            call = self._call(self._held[begin + len(_BEGIN) : end])
            said += self._held[: begin if call else stop]
            calls += [call] if call else []
            self._held = self._held[stop:]
        kept = 0 if last else _possible_call(self._held)
        said += self._held[: len(self._held) - kept]
        self._held = self._held[len(self._held) - kept :]
        return said, calls

    def _call(self, text: str) -> dict[str, Any] | None:
        try:
            call = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(call, dict) or call.get("name") not in self._names:
            return None
        self.found += 1
        return {
            "index": self.found - 1,
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call.get("arguments") or {})},
        }


def _possible_call(text: str) -> int:
    """How many of the last characters are a call that is not complete, or the beginning of its mark."""
    if (begin := text.find(_BEGIN)) >= 0:
        return len(text) - begin
    return next((size for size in range(len(_BEGIN) - 1, 0, -1) if text.endswith(_BEGIN[:size])), 0)
