"""The one model's queue: answers are made one after another, in the order they were asked for.

A thread of its own computes; asyncio's side hands jobs over and receives pieces. Who leaves (a client that
went away, a page's stop button) ends the computation at the next piece and gives the place in the queue back.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from train.serving.errors import ApiError, bad_request
from train.talk.engine import Engine, Piece, PromptError, Sampling

WAITING_LIMIT = 64  # answers that are being made or waited for; a queue longer than that is no use to anyone
_RETRY_AFTER_S = 5

Result = TypeVar("Result")


class Job:
    """One answer on its way: an async iterator of pieces. Leaving the `with` block ends the computation."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, done: Callable[[Job], None]) -> None:
        self.prompt, self.sampling = prompt, sampling
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | ApiError | None] = asyncio.Queue()
        self._left = threading.Event()
        self._done = done

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Nobody waits for this answer any more."""
        self._left.set()
        self._done(self)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Raises ApiError where the model can't answer."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, ApiError):
                raise piece
            yield piece

    def compute(self, engine: Engine) -> None:
        """The answer, in the engine's thread; nothing where nobody waits for it."""
        if self._left.is_set():
            return
        try:
            with contextlib.closing(_generator(engine.stream(self.prompt, self.sampling))) as pieces:
                for piece in pieces:
                    self.put(piece)
                    if self._left.is_set():
                        return
            self.put(None)
        except PromptError as error:
            self.put(bad_request(str(error)))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self.put(ApiError(500, "the model failed: the server's terminal says why"))

    def put(self, piece: Piece | ApiError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is ending
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


def _generator(pieces: Any) -> Any:
    """With a `close()` also where the engine gave a plain iterator."""
    return pieces if hasattr(pieces, "close") else (piece for piece in pieces)


class AnswerQueue:
    """Owns the engine from here on. All methods but `close` are called in one event loop."""

    def __init__(self, engine: Engine, limit: int = WAITING_LIMIT) -> None:
        self.engine = engine
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open: set[Job] = set()
        self._closed = False
        self._encoder = ThreadPoolExecutor(1, "encoder")  # a tokenizer is used by one thread at a time
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Answers that are being made or waited for."""
        return len(self._open)

    async def encode(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """A method of the engine that makes tokens, out of the event loop's way. Raises ApiError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._encoder, function, *arguments)
        except PromptError as error:
            raise bad_request(str(error), "messages") from error

    def submit(self, asked: Sequence[tuple[Sequence[int], Sampling]]) -> list[Job]:
        """One job for each prompt, all or none. Raises ApiError where the queue is full."""
        if self._closed:
            raise ApiError(503, "the server is ending")
        if len(self._open) + len(asked) > self._limit:
            raise ApiError(
                503,
                f"{len(self._open)} answers are being waited for already; try again later",
                code="server_overloaded",
                retry_after_s=_RETRY_AFTER_S,
            )
        jobs = [Job(prompt, sampling, self._open.discard) for prompt, sampling in asked]
        self._open.update(jobs)
        for job in jobs:
            self._jobs.put(job)
        return jobs

    def close(self) -> None:
        """End what is being computed, tell those who wait, and give the model's memory back."""
        self._closed = True
        for job in list(self._open):
            job.put(ApiError(503, "the server is ending"))
            job.leave()
        self._jobs.put(None)
        self._thread.join()
        self._encoder.shutdown()
        self.engine.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.compute(self.engine)
