"""One request's answers: in one object, or as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from train.serving.errors import ApiError, bad_request
from train.serving.queue import Job
from train.serving.responses import LAST_EVENT, Shape, Usage, event
from train.serving.tools import CallReader
from train.talk.engine import Sampling

_KEEP_ALIVE_S = 15  # proxies close connections that are silent for longer (often 60 s)

Result = TypeVar("Result")


def check_room(prompt_tokens: int, sampling: Sampling, context_length: int, param: str) -> None:
    """Raises ApiError where prompt and answer together are longer than the model's context."""
    wanted = sampling.max_new_tokens or 1
    if prompt_tokens + wanted > context_length:
        raise bad_request(
            f"this model's context is {context_length} tokens; the prompt has {prompt_tokens} and the answer "
            f"may have {wanted}: shorten the one, or lower max_tokens",
            param,
            "context_length_exceeded",
        )


async def whole(jobs: Sequence[Job], shape: Shape, usage: Usage, tools: list[Any] | None) -> dict[str, Any]:
    """The answer object. Raises ApiError."""
    choices = []
    for index, job in enumerate(jobs):
        reader, text, calls, reason = CallReader(tools), "", [], "stop"
        async for piece in job:
            said, made = reader.feed(piece.text, last=piece.finish_reason is not None)
            text, calls, reason = text + said, calls + made, piece.finish_reason or reason
            usage.count(index, piece.tokens)
        job.leave()
        calls = [{name: value for name, value in call.items() if name != "index"} for call in calls]
        choices.append(shape.whole(index, text, "tool_calls" if calls else reason, calls))
    return shape.head.to_json(choices) | {"usage": usage.to_json()}


async def events(
    jobs: Sequence[Job], shape: Shape, usage: Usage, tools: list[Any] | None, *, include_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events. With `include_usage` each has a `usage`, null but in the last, which has no
    choices: as OpenAI documents it. An error ends the stream as an event of its own."""
    extra: dict[str, Any] = {"usage": None} if include_usage else {}

    def choice(value: dict[str, Any]) -> str:
        return event(shape.head.to_json([value]) | extra)

    try:
        for index, job in enumerate(jobs):
            if begin := shape.begin(index):
                yield choice(begin)
            reader = CallReader(tools)
            reason = "stop"
            async for piece in _kept_alive(aiter(job)):
                if piece is None:
                    yield ": waiting\n\n"  # a comment: readers leave it out
                    continue
                usage.count(index, piece.tokens)
                said, calls = reader.feed(piece.text, last=piece.finish_reason is not None)
                if said:
                    yield choice(shape.piece(index, said))
                if calls:
                    yield choice(shape.piece(index, "", calls))
                reason = piece.finish_reason or reason
            job.leave()
            yield choice(shape.end(index, "tool_calls" if reader.found else reason))
        if include_usage:
            yield event(shape.head.to_json([]) | {"usage": usage.to_json()})
    except ApiError as error:
        yield event(error.body())
    yield LAST_EVENT


async def _kept_alive(pieces: AsyncIterator[Result]) -> AsyncIterator[Result | None]:
    """None whenever nothing came for a while."""
    coming: asyncio.Task[Result] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(pieces))
            done, _ = await asyncio.wait({coming}, timeout=_KEEP_ALIVE_S)
            if not done:
                yield None
                continue
            try:
                piece = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield piece
    finally:
        if coming is not None:
            coming.cancel()


class AnswerStream(StreamingResponse):
    """Events, and the end of the computation however the client takes its leave."""

    def __init__(self, content: AsyncIterator[str], jobs: Sequence[Job]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # nginx would collect pieces
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._jobs = jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            leave(self._jobs)


def leave(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.leave()


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The work's result; None, and the work cancelled, where the client goes away before."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
