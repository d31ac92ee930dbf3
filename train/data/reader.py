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
            batch
            for path in paths
            for shard in [pa.ipc.open_file(pa.memory_map(str(path)))]
            for batch in (shard.get_batch(index) for index in range(shard.num_record_batches))
        ]
        #: first row of each record batch, and the number of rows
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Row:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, row = self._batches[number], index - int(self._starts[number])
        return Row(
            input_ids=_values(batch.column(0), row),
            labels=_values(batch.column(1), row),
            document_lengths=_values(batch.column(2), row),
        )

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (rows,), without touching the tokens."""
        if not self._batches:
            return np.zeros(0, np.int32)
        return np.concatenate([np.diff(batch.column(0).offsets) for batch in self._batches])

    def __reduce__(self) -> tuple[type[PreparedSplit], tuple[Path, str]]:
        return PreparedSplit, (self.folder, self.split)


def _values(column: pa.ListArray, row: int) -> np.ndarray:
    start, stop = column.offsets[row].as_py(), column.offsets[row + 1].as_py()
    return column.values[start:stop].to_numpy()
