"""CSV as a stream of records: a row is an object with the columns as keys."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from artifacts.filetypes import BOM, DataFileError, split_header
from artifacts.formats.base import RecordError
from artifacts.readers import MAX_RECORD_BYTES, BadRecord, RawRecord, parse_json


def read_csv(
    stream: BinaryIO, json_columns: Collection[str] = (), *, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """RFC 4180, with the delimiter that fits the header; cells of `json_columns` hold JSON. Raises
    DataFileError for a header that is none."""
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
            record = _row(header, row, lines.invalid_at, json_columns)
            yield RawRecord(number, start, line, record, None, lines.unfinished)
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


def _row(
    header: list[str], row: list[str], invalid_at: int | None, json_columns: Collection[str]
) -> dict[str, Any]:
    if invalid_at is not None:
        raise RecordError(f"invalid UTF-8 at byte offset {invalid_at}")
    if len(row) != len(header):
        raise RecordError(f"the header has {len(header)} columns, this row {len(row)}")
    record: dict[str, Any] = dict(zip(header, row, strict=True))
    for name in json_columns:
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
