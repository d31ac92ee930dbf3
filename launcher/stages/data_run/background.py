"""Work that releases the interpreter's lock (hashing, writing) done beside the parsing, in order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_WAITING = 4  # calls that may queue up; their data is held


class Background:
    """One thread that makes calls in the order given. What a call raises comes out of a later `run` or
    `wait`, or of the end of the `with` block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="data")
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.wait()

    def run(self, call: Callable[..., Any], *arguments: Any) -> None:
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call, *arguments))

    def wait(self) -> None:
        """Until every call so far has been made."""
        while self._waiting:
            self._waiting.popleft().result()


class BackgroundSha256:
    """SHA-256 of blocks that are copied and hashed in the background."""

    def __init__(self, background: Background) -> None:
        self._background, self._hash = background, hashlib.sha256()

    def update(self, block: bytes | memoryview) -> None:
        self._background.run(self._hash.update, bytes(block))

    def hexdigest(self) -> str:
        self._background.wait()
        return self._hash.hexdigest()
