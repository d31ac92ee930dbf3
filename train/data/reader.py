"""Random access to a prepared split, memory-mapped: what the training loop reads."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa


class Row(TypedDict):
    """One sequence: read-only int32 views into the mapped file, so copy before changing anything.

    `labels` equals `input_ids` where a token is learnt, else `IGNORED_LABEL`. Position ids restart at each
    document; `document_lengths` sums to the row's length.
    """

    input_ids: np.ndarray  # (tokens,)
    labels: np.ndarray  # (tokens,)
    document_lengths: np.ndarray  # (documents,)


class PreparedSplit:
    """The rows of `<split>-NNNNN.arrow` under `folder`, in the order they were written.

    A sequence in the sense of torch's map-style datasets; opening reads only the files' footers. It can be
    pickled (a worker process maps the files itself). Raises FileNotFoundError where the folder has no such
    split.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder, self.split = Path(folder), split
        paths = sorted(self.folder.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].arrow"))
        if not paths:
            raise FileNotFoundError(f"{self.folder}: no prepared split {split!r}")
        self._batches = [
            [_Lists(column) for column in shard.get_batch(number).columns]
            for shard in (pa.ipc.open_file(pa.memory_map(str(path))) for path in paths)
            for number in range(shard.num_record_batches)
        ]
        #: first row of each record batch, and the number of rows
        self._starts = np.cumsum([0] + [len(columns[0]) for columns in self._batches])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Row:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[number])
        input_ids, labels, document_lengths = (column[row] for column in self._batches[number])
        return Row(input_ids=input_ids, labels=labels, document_lengths=document_lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (rows,), without touching the tokens."""
        if not self._batches:
            return np.zeros(0, np.int32)
        return np.concatenate([np.diff(columns[0].starts) for columns in self._batches])

    def __reduce__(self) -> tuple[type[PreparedSplit], tuple[Path, str]]:
        return PreparedSplit, (self.folder, self.split)


class _Lists:
    """A list<int32> column as numpy views of its buffers."""

    def __init__(self, column: pa.ListArray) -> None:
        _, starts, _, values = column.buffers()
        self.starts = np.frombuffer(starts, np.int32)[column.offset : column.offset + len(column) + 1]
        self.values = np.frombuffer(values, np.int32)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.starts[row] : self.starts[row + 1]]
