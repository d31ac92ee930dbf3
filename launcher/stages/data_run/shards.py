"""Lines into the numbered files `<split>-NNNNN.jsonl` of an artifact."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import BinaryIO, Self

from artifacts.manifest import ArtifactWriter

SHARD_BYTES = 64_000_000
_WRITE_BYTES = 1024 * 1024


class ShardWriter:
    """Begins the next file once the current one has SHARD_BYTES (and at most one write's lines more)."""

    def __init__(self, writer: ArtifactWriter, split: str) -> None:
        self.names: list[str] = []
        self._writer, self._split = writer, split
        self._lines: list[bytes] = []
        self._held_bytes = self._shard_size = 0
        self._open_shard = contextlib.ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._open_shard.__exit__(kind, error, trace)

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        self._held_bytes += len(line) + 1
        if self._held_bytes >= min(_WRITE_BYTES, SHARD_BYTES):
            self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        if self._stream is None:
            self.names.append(f"{self._split}-{len(self.names):05d}.jsonl")
            self._stream = self._open_shard.enter_context(self._writer.open(self.names[-1]))
        self._stream.write(b"\n".join(self._lines) + b"\n")
        self._shard_size += self._held_bytes
        self._lines, self._held_bytes = [], 0
        if self._shard_size >= SHARD_BYTES:
            self._open_shard.close()
            self._stream, self._shard_size = None, 0
