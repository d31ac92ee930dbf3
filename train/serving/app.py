"""The API: OpenAI's paths over one queue."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from train.serving.answers import AnswerStream, check_room, events, leave, while_connected, whole
from train.serving.errors import ApiError
from train.serving.guard import AccessLog, Guard, own_hosts
from train.serving.queue import AnswerQueue, Job
from train.serving.requests import ChatRequest, CompletionRequest, read
from train.serving.responses import ChatShape, Shape, TextShape, Usage, model_card
from train.talk.engine import Sampling

MAX_BODY_BYTES = 16 * 1024**2
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def make_app(
    queue: AnswerQueue | None, *, host: str = "127.0.0.1", port: int, api_key: str | None = None
) -> FastAPI:
    """The application for a server at that address. Without a queue it has no API: a page alone."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if queue is not None:
            await asyncio.to_thread(queue.close)

    # No pages of documentation: FastAPI's load their scripts from elsewhere.
    app = FastAPI(title="slipway serve", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, own_hosts=own_hosts(host, port), api_key=api_key)
    app.add_middleware(AccessLog)  # the last one added is the outermost
    app.add_exception_handler(ApiError, _answer_error)
    app.add_exception_handler(Exception, _answer_failure)
    if queue is not None:
        _add_api(app, queue)
    else:
        app.add_api_route("/health", lambda: {"status": "ok"})
    return app


def _add_api(app: FastAPI, queue: AnswerQueue) -> None:
    name, created = queue.engine.source.name, int(time.time())
    card = model_card(name, created, queue.engine.context_length)

    def require_model(wanted: str | None) -> None:
        if wanted not in (None, name):
            raise ApiError(
                404, f"no model {wanted!r} here: there is {name!r}", param="model", code="model_not_found"
            )

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": name, "waiting": queue.length}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        require_model(model)
        return card

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = read(ChatRequest, await _body(request))
        require_model(asked.model)
        tools = asked.declared_tools()
        prompt = await queue.encode(queue.engine.encode_chat, asked.conversation(), tools)
        samplings = [asked.sampling(asked.max_new_tokens, choice) for choice in range(asked.choices)]
        check_room(len(prompt), samplings[0], queue.engine.context_length, "messages")
        shape = ChatShape(name, streamed=bool(asked.stream))
        usage = _count(request, len(prompt))
        jobs = queue.submit([(prompt, sampling) for sampling in samplings])
        return await _answer(request, asked, jobs, shape, usage, tools)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = read(CompletionRequest, await _body(request))
        require_model(asked.model)
        work: list[tuple[Sequence[int], Sampling]] = []
        prompts = [await queue.encode(queue.engine.encode_text, text) for text in asked.prompts()]
        for prompt in prompts:
            samplings = [asked.sampling(asked.max_new_tokens, choice) for choice in range(asked.choices)]
            check_room(len(prompt), samplings[0], queue.engine.context_length, "prompt")
            work += [(prompt, sampling) for sampling in samplings]
        usage = _count(request, sum(map(len, prompts)))
        return await _answer(request, asked, queue.submit(work), TextShape(name), usage, None)

    @app.api_route("/v1/{rest:path}", methods=_METHODS)
    async def unknown(rest: str) -> Response:
        known = {"chat/completions": "POST", "completions": "POST", "models": "GET"}
        if rest in known:
            raise ApiError(405, f"/v1/{rest} takes {known[rest]}")
        raise ApiError(404, f"there is no /v1/{rest} here", code="unknown_url")


async def _answer(
    request: Request,
    asked: ChatRequest | CompletionRequest,
    jobs: Sequence[Job],
    shape: Shape,
    usage: Usage,
    tools: list[Any] | None,
) -> Response:
    if asked.stream:
        content = events(jobs, shape, usage, tools, include_usage=asked.include_usage)
        return AnswerStream(content, jobs)
    try:
        made = await while_connected(request, whole(jobs, shape, usage, tools))
    finally:
        leave(jobs)
    return JSONResponse(made) if made is not None else Response(status_code=499)  # nginx's "client went away"


def _count(request: Request, prompt_tokens: int) -> Usage:
    """The request's usage, where the access log finds it."""
    request.state.usage = Usage(prompt_tokens)
    return request.state.usage


async def _body(request: Request) -> bytes:
    """Raises ApiError for one that is too long to be a conversation."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body has more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def _answer_failure(request: Request, error: Exception) -> Response:
    """Its trace is on the server's terminal."""
    return await _answer_error(request, ApiError(500, "the server failed: its terminal says why"))
