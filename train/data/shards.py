"""Prepared splits on disk: `<split>-NNNNN.arrow`, Arrow IPC files of one row a sequence.

Columns: `input_ids`, `labels` and `document_lengths`, all list<int32>. Rows lie in small record batches, so a
memory-mapped reader touches only the pages of the rows it wants (`train.data.reader`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artifacts.manifest import ArtifactWriter

COLUMNS = ("input_ids", "labels", "document_lengths")
SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in COLUMNS])

BATCH_TOKENS = 256 * 1024  # tokens per record batch: 2 MiB of ids and labels
SHARD_TOKENS = 32 * 1024 * 1024  # tokens per file: 256 MiB


def shard_name(split: str, index: int) -> str:
    return f"{split}-{index:05d}.arrow"


@dataclass(frozen=True)
class Rows:
    """Sequences, columnwise: row i's tokens are `input_ids[row_starts[i]:row_starts[i + 1]]`, and its
    documents' lengths `document_lengths[document_starts[i]:document_starts[i + 1]]`. All int32."""

    input_ids: np.ndarray  # (tokens,)
    labels: np.ndarray  # (tokens,)
    row_starts: np.ndarray  # (rows + 1,)
    document_lengths: np.ndarray  # (documents,)
    document_starts: np.ndarray  # (rows + 1,)

    def __len__(self) -> int:
        return len(self.row_starts) - 1

    def slice(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, with starts counted from 0 again."""
        tokens = slice(self.row_starts[start], self.row_starts[stop])
        documents = slice(self.document_starts[start], self.document_starts[stop])
        return Rows(
            self.input_ids[tokens],
            self.labels[tokens],
            self.row_starts[start : stop + 1] - self.row_starts[start],
            self.document_lengths[documents],
            self.document_starts[start : stop + 1] - self.document_starts[start],
        )


class ShardWriter:
    """Writes a split's rows as shards of an artifact. Use as a context manager; an empty split still leaves
    one (empty) shard, so that a reader can tell it from a missing one."""

    def __init__(self, artifact: ArtifactWriter, split: str, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self._artifact, self._split, self._shard_tokens = artifact, split, shard_tokens
        self._shard: contextlib.ExitStack | None = None
        self._arrow: pa.RecordBatchFileWriter | None = None
        self._shards = self._tokens = 0

    def __enter__(self) -> ShardWriter:
        self._open()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        if self._shard is not None:
            self._shard.__exit__(error_type, *error)

    def write(self, rows: Rows) -> None:
        for batch in _batches(rows):
            if self._tokens >= self._shard_tokens:
                self._close()
                self._open()
            self._arrow.write_batch(_record_batch(batch))
            self._tokens += len(batch.input_ids)

    def _open(self) -> None:
        self._shard = contextlib.ExitStack()
        stream = self._shard.enter_context(self._artifact.open(shard_name(self._split, self._shards)))
        self._arrow = self._shard.enter_context(pa.ipc.new_file(stream, SCHEMA))
        self._shards, self._tokens = self._shards + 1, 0

    def _close(self) -> None:
        shard, self._shard = self._shard, None
        shard.close()


def _batches(rows: Rows) -> Iterator[Rows]:
    """Cut rows into runs of about BATCH_TOKENS tokens, at least one row each."""
    start = 0
    while start < len(rows):
        limit = rows.row_starts[start] + BATCH_TOKENS
        stop = max(start + 1, int(np.searchsorted(rows.row_starts, limit, side="right")) - 1)
        yield rows.slice(start, stop)
        start = stop


def _record_batch(rows: Rows) -> pa.RecordBatch:
    columns = [
        _lists(rows.row_starts, rows.input_ids),
        _lists(rows.row_starts, rows.labels),
        _lists(rows.document_starts, rows.document_lengths),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _lists(starts: np.ndarray, values: np.ndarray) -> pa.ListArray:
    """Without copying, and not by `pa.array`, which imports pandas (0.6 s)."""
    items = pa.Array.from_buffers(pa.int32(), len(values), [None, _buffer(values)])
    return pa.Array.from_buffers(SCHEMA.types[0], len(starts) - 1, [None, _buffer(starts)], children=[items])


def _buffer(array: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.ascontiguousarray(array, np.int32))
