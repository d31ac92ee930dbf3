"""Who answers on the page: the model of this process, or another server with the same API."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Protocol

import httpx

from train.serving.answers import check_room
from train.serving.errors import ApiError
from train.serving.queue import AnswerQueue
from train.talk.engine import Message, Piece, Sampling

_CONNECT_S = 10


class Talker(Protocol):
    name: str
    description: str  # what computes, for people; "" where that is not known

    def talk(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """The answer as it comes. Closing the iterator ends the computation. Raises ApiError."""


class LocalTalker:
    """Takes its turn in the queue, as every client of the API. An answer is no longer than the context
    allows."""

    def __init__(self, queue: AnswerQueue) -> None:
        self.name = queue.engine.source.name
        self.description = queue.engine.description
        self._queue = queue

    async def talk(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Piece, None]:
        engine = self._queue.engine
        prompt = await self._queue.encode(engine.encode_chat, messages)
        room = max(engine.context_length - len(prompt), 1)
        sampling = dataclasses.replace(sampling, max_new_tokens=min(sampling.max_new_tokens or room, room))
        check_room(len(prompt), sampling, engine.context_length, "messages")
        (job,) = self._queue.submit([(prompt, sampling)])
        with job:
            async for piece in job:
                yield piece


class RemoteTalker:
    """A client of another server's `/v1/chat/completions`. Tokens are counted as pieces until it tells."""

    def __init__(self, address: str, name: str, api_key: str | None) -> None:
        self.name, self.description = name, ""
        self._address = f"{address.rstrip('/')}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def talk(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Piece, None]:
        body = {
            "model": self.name,
            "messages": list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= {"max_tokens": sampling.max_new_tokens} if sampling.max_new_tokens else {}
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
                client.stream("POST", self._address, json=body, headers=self._headers) as answer,
            ):
                if answer.status_code != 200:
                    raise _error(answer.status_code, await answer.aread())
                async for piece in _pieces(answer.aiter_lines()):
                    yield piece
        except httpx.HTTPError as error:
            raise ApiError(502, f"the model's server can't be reached: {type(error).__name__}") from error


async def _pieces(lines: AsyncIterator[str]) -> AsyncIterator[Piece]:
    tokens, reason = 0, None
    async for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        told: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in told:
            raise ApiError(500, str(told["error"].get("message", "the model's server failed")))
        for choice in told.get("choices") or ():
            reason = choice.get("finish_reason") or reason
            if text := choice["delta"].get("content"):
                tokens += 1
                yield Piece(text=text, tokens=tokens)
        tokens = (told.get("usage") or {}).get("completion_tokens", tokens)
    yield Piece(text="", tokens=tokens, finish_reason="length" if reason == "length" else "stop")


def _error(status: int, body: bytes) -> ApiError:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the model's server answered with status {status}"
    return ApiError(status, message)
