"""Lines into the numbered files `<split>-NNNNN.jsonl` of an artifact."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import BinaryIO, Self

from artifacts.manifest import ArtifactWriter

SHARD_BYTES = 64_000_000
_WRITE_BYTES = 1024 * 1024


class ShardWriter:
    """Begins the next file once the current one has `shard_bytes` (plus at most one write's lines)."""

    def __init__(self, writer: ArtifactWriter, split: str, shard_bytes: int = SHARD_BYTES) -> None:
        self.names: list[str] = []
        self._writer, self._split, self._shard_bytes = writer, split, shard_bytes
        self._lines: list[bytes] = []
        self._held_bytes = self._shard_size = 0
        self._stream: BinaryIO | None = None
        self._open_shard = contextlib.ExitStack()

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
        if self._held_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        if self._stream is None:
            name = f"{self._split}-{len(self.names):05d}.jsonl"
            self._stream = self._open_shard.enter_context(self._writer.open(name))
            self.names.append(name)
        self._lines.append(b"")
        self._stream.write(b"\n".join(self._lines))
        self._shard_size += self._held_bytes
        self._lines, self._held_bytes = [], 0
        if self._shard_size >= self._shard_bytes:
            self._open_shard.close()
            self._stream, self._shard_size = None, 0
