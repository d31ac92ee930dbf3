"""Parquet and Arrow as streams of records: a row is an object with the columns as keys.

Only the columns that are asked for are read (all of a file that has none of them, the first 16 at most): an
image beside the text costs nothing. Raises DataFileError where a file can't be opened or a part of it read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from artifacts.filetypes import DataFileError
from artifacts.readers import BadRecord, RawRecord

_ROWS = 256  # at a time
_UNKNOWN_COLUMNS = 16


class TableReader:
    """One table, read once. `columns` are all that it has; `cut` tells that rows were left out for
    `limit_bytes`."""

    def __init__(self, wanted: Collection[str], limit_bytes: int | None = None) -> None:
        self._wanted, self._limit_bytes = wanted, limit_bytes
        self.columns: list[str] = []
        self.read_columns: list[str] = []
        self.cut = False
        self._number = 0

    def parquet(self, path: Path) -> Iterator[RawRecord | BadRecord]:
        """Row group by row group, ending before the one that begins behind the limit."""
        with _readable("Parquet"):
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(path, buffer_size=1024 * 1024, pre_buffer=False) as file:
                names = self._choose(file.schema_arrow.names)
                for group in range(file.num_row_groups):
                    offset = _row_group_offset(file.metadata.row_group(group))
                    if self._is_behind(offset):
                        return
                    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                        yield from self._records(batch, offset)

    def arrow_file(self, path: Path) -> Iterator[RawRecord | BadRecord]:
        """An IPC file, batch by batch; `byte_offset` counts the bytes of the batches before."""
        with _readable("an Arrow file"):
            import pyarrow

            with pyarrow.OSFile(str(path)) as source:
                names = pyarrow.ipc.open_file(source).schema.names
                reader = pyarrow.ipc.open_file(source, options=self._options(names))
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
                yield from self._batches(batches)

    def arrow_stream(self, stream: BinaryIO) -> Iterator[RawRecord | BadRecord]:
        """An IPC stream, as `datasets` saves it."""
        with _readable("an Arrow stream"):
            import pyarrow

            reader = pyarrow.ipc.open_stream(pyarrow.PythonFile(stream, mode="r"))
            names = self._choose(reader.schema.names)
            yield from self._batches(batch.select(names) for batch in reader)

    def _options(self, names: list[str]) -> Any:
        import pyarrow

        chosen = self._choose(names)
        return pyarrow.ipc.IpcReadOptions(included_fields=[names.index(name) for name in chosen])

    def _choose(self, names: list[str]) -> list[str]:
        known = [name for name in names if name in self._wanted]
        self.columns, self.read_columns = list(names), known or names[:_UNKNOWN_COLUMNS]
        return self.read_columns

    def _is_behind(self, offset: int) -> bool:
        self.cut = self.cut or (self._limit_bytes is not None and offset >= self._limit_bytes)
        return self.cut

    def _batches(self, batches: Iterator[Any]) -> Iterator[RawRecord | BadRecord]:
        offset = 0
        for batch in batches:
            if self._is_behind(offset):
                return
            for start in range(0, batch.num_rows, _ROWS):
                yield from self._records(batch.slice(start, _ROWS), offset)
            offset += batch.nbytes

    def _records(self, batch: Any, offset: int) -> Iterator[RawRecord | BadRecord]:
        for row in _rows(batch):
            self._number += 1
            if isinstance(row, dict):
                yield RawRecord(self._number, offset, None, row, None)
            else:
                yield BadRecord(self._number, offset, None, row)


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        import pyarrow
    except ImportError:
        raise DataFileError(
            f"reading {what} needs pyarrow", "install it, or convert the file to JSON lines"
        ) from None
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataFileError(
            f"not readable as {what}: {why}", "is it cut off? copy or write it again"
        ) from None


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The batch's rows as objects; the reason, for one whose text is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"invalid UTF-8: byte 0x{error.object[error.start]:02x} in a column"


def _row_group_offset(group: Any) -> int:
    """Byte offset of the row group's first page."""
    if group.num_columns == 0:
        return 0
    column = group.column(0)
    return int(column.dictionary_page_offset or column.data_page_offset)
