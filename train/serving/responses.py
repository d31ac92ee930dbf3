"""What clients get: OpenAI's objects, and server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Usage:
    """Tokens of one request, counted while it is answered. The end of turn, which is no text, is one too."""

    prompt_tokens: int = 0
    _of_choices: dict[int, int] = field(default_factory=dict)

    def count(self, choice: int, tokens: int) -> None:
        """So many were made of that choice so far."""
        self._of_choices[choice] = tokens

    @property
    def completion_tokens(self) -> int:
        return sum(self._of_choices.values())

    def to_json(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True)
class Head:
    """What every object of one answer begins with."""

    model: str
    id: str
    object: str
    created: int

    def to_json(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }


class ChatShape:
    """The objects of `/v1/chat/completions`."""

    def __init__(self, model: str, *, streamed: bool) -> None:
        kind = "chat.completion.chunk" if streamed else "chat.completion"
        self.head = Head(model, f"chatcmpl-{uuid.uuid4().hex}", kind, int(time.time()))

    def begin(self, index: int) -> dict[str, Any] | None:
        """What a stream's choice begins with."""
        return self._delta(index, {"role": "assistant", "content": ""}, None)

    def piece(self, index: int, text: str, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        return self._delta(index, {"tool_calls": calls} if calls else {"content": text}, None)

    def end(self, index: int, reason: str) -> dict[str, Any]:
        return self._delta(index, {}, reason)

    def whole(
        self, index: int, text: str, reason: str, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def _delta(self, index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


class TextShape:
    """The objects of `/v1/completions`."""

    def __init__(self, model: str) -> None:
        self.head = Head(model, f"cmpl-{uuid.uuid4().hex}", "text_completion", int(time.time()))

    def begin(self, index: int) -> dict[str, Any] | None:
        return None

    def piece(self, index: int, text: str, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        return self._choice(index, text, None)

    def end(self, index: int, reason: str) -> dict[str, Any]:
        return self._choice(index, "", reason)

    def whole(
        self, index: int, text: str, reason: str, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        return self._choice(index, text, reason)

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


Shape = ChatShape | TextShape


def event(value: dict[str, Any]) -> str:
    """One server-sent event; JSON in ASCII holds no line break."""
    return f"data: {json.dumps(value)}\n\n"


LAST_EVENT = "data: [DONE]\n\n"


def model_card(name: str, created: int, context_length: int) -> dict[str, Any]:
    """`max_model_len` is vLLM's name for what OpenAI does not tell."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "slipway",
        "max_model_len": context_length,
    }
