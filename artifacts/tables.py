"""CSV and Parquet as streams of records: a row is an object with the columns as keys."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from artifacts.conversations import RecordError
from artifacts.filetypes import BOM, DataFileError, split_header
from artifacts.readers import MAX_RECORD_BYTES, BadRecord, RawRecord, parse_json

_JSON_COLUMNS = ("messages", "history")  # their cells hold JSON
_PARQUET_COLUMNS = ("messages", "instruction", "input", "output", "system", "history")
_PARQUET_ROWS = 256  # at a time


def read_csv(
    stream: BinaryIO, *, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """RFC 4180, with the delimiter that fits the header. Raises DataFileError for a header that is none."""
    csv.field_size_limit(max_record_bytes)  # the module's own default is 128 KiB
    lines = _Lines(stream, max_record_bytes)
    header, delimiter = _header(lines)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while True:
        start, line = lines.begin_record()
        try:
            row = next(rows, None)
        except (csv.Error, RecordError) as error:
            number += 1
            yield BadRecord(number, start, line, _csv_reason(error), at_end=lines.ended)
            continue
        if row is None:
            return
        if not row:
            continue
        number += 1
        try:
            yield RawRecord(number, start, line, _row(header, row, lines.invalid_at), None, lines.unfinished)
        except RecordError as error:
            yield BadRecord(number, start, line, str(error), at_end=lines.unfinished)


def _header(lines: _Lines) -> tuple[list[str], str]:
    first = next(lines, "")
    names, delimiter = split_header(first.strip("\r\n"))
    if lines.invalid_at is not None:
        raise DataFileError(
            f"the header is not UTF-8 (byte offset {lines.invalid_at})", "save the file as UTF-8"
        )
    if "\r" in first.rstrip("\r\n"):
        raise DataFileError("lines end with a bare carriage return", "end them with a newline: mac2unix FILE")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataFileError(f"the header names the column {twice[0]!r} twice")
    return names, delimiter


def _row(header: list[str], row: list[str], invalid_at: int | None) -> dict[str, Any]:
    if invalid_at is not None:
        raise RecordError(f"invalid UTF-8 at byte offset {invalid_at}")
    if len(row) != len(header):
        raise RecordError(f"the header has {len(header)} columns, this row {len(row)}")
    record: dict[str, Any] = dict(zip(header, row, strict=True))
    for name in _JSON_COLUMNS:
        if cell := record.get(name):
            try:
                record[name] = parse_json(cell.encode())
            except RecordError as error:
                raise RecordError(f"column {name}: {error}") from None
    return record


def _csv_reason(error: Exception) -> str:
    if "unexpected end of data" in str(error):
        return "a quoted field is never closed: all that follows belongs to it"
    if "new-line character" in str(error):
        return "a bare carriage return outside quotes"
    if "field larger" in str(error):
        return "longer than a record may be (a quote that is never closed?)"
    return str(error) if isinstance(error, RecordError) else f"not CSV: {error}"


class _Lines:
    """The lines that csv.reader pulls, one record's worth at a time, with their place in the file."""

    def __init__(self, stream: BinaryIO, max_record_bytes: int) -> None:
        self._stream, self._max_record_bytes = stream, max_record_bytes
        self._end, self._line, self._record_start = 0, 0, 0
        self.invalid_at: int | None = None  # byte offset of the record's first byte that is not UTF-8
        self.ended = False  # the file was read to its end
        self.unfinished = False  # the last line had no newline

    def begin_record(self) -> tuple[int, int]:
        """(byte offset, line) at which the next record starts."""
        self._record_start, self.invalid_at = self._end, None
        return self._end, self._line + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        room = self._max_record_bytes - (self._end - self._record_start)
        raw = self._stream.readline(max(0, room) + 1)
        if not raw:
            self.ended = True
            raise StopIteration
        start = self._end
        self._end += len(raw)
        self._line += 1
        if len(raw) > room:
            raise RecordError(f"longer than {self._max_record_bytes} bytes (a quote that is never closed?)")
        self.unfinished = not raw.endswith(b"\n")
        if start == 0:
            raw, start = raw.removeprefix(BOM), start + len(BOM) * raw.startswith(BOM)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            if self.invalid_at is None:
                self.invalid_at = start + error.start
            return raw.decode("utf-8", "replace")


def read_parquet(path: Path, *, limit_bytes: int | None = None) -> Iterator[RawRecord | BadRecord]:
    """Row group by row group, ending before the one that begins behind `limit_bytes`. Only the columns that a
    format knows are read, the first 16 where it knows none.

    Raises DataFileError where the file can't be opened as Parquet, or a row group can't be read."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataFileError(
            "reading Parquet needs pyarrow", "install it, or convert the file to JSON lines"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1024 * 1024, pre_buffer=False) as file:
            names = file.schema_arrow.names
            known = [name for name in names if name in _PARQUET_COLUMNS]
            number = 0
            for group in range(file.num_row_groups):
                offset = _row_group_offset(file.metadata.row_group(group))
                if limit_bytes is not None and offset >= limit_bytes:
                    return
                for batch in file.iter_batches(
                    _PARQUET_ROWS, row_groups=[group], columns=known or names[:16]
                ):
                    for row in _rows(batch):
                        number += 1
                        if isinstance(row, dict):
                            yield RawRecord(number, offset, None, row, None)
                        else:
                            yield BadRecord(number, offset, None, row)
    except (pyarrow.ArrowException, OSError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataFileError(
            f"not readable as Parquet: {why}", "is it cut off? copy or write it again"
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
