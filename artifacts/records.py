"""Data files in, canonical records out: JSON, CSV, Parquet, Arrow or text, compressed or not, in the formats
of `artifacts.formats`, streamed in bounded memory.

    records = RecordFile(path)
    for item in records:            # GoodRecord | BadRecord
        ...
    print(records.said)             # "JSON lines, format alpaca (detected)"

Raises DataFileError where the file as a whole is no data file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from artifacts.compression import DamagedError
from artifacts.contract import Reading, RecordFormat
from artifacts.data_report import DataReport, FileReport, SplitReport
from artifacts.filetypes import (
    RANDOM_ACCESS,
    SUFFIXES,
    DataFileError,
    FileType,
    data_suffix,
    detect_file_type,
)
from artifacts.formats import (
    Lost,
    Message,
    Record,
    RecordError,
    RecordReader,
    columns_reason,
    detect_format,
    encode_record,
    is_plain,
)
from artifacts.formats.columns import json_columns, readable_columns, unused
from artifacts.formats.custom import CustomFileError, check_custom_file
from artifacts.readers import BadRecord, RawRecord, read_json_lines, read_text
from artifacts.sources import BUFFER_BYTES, Digest, Source, drain, unreadable

__all__ = [
    "BadRecord",
    "DataFileError",
    "DataReport",
    "Digest",
    "FileReport",
    "GoodRecord",
    "RecordFile",
    "SplitReport",
]

_LOOK_AT = 100  # records, to detect the format
# Suffixes that stand for several types.
_SAME = ((".json", FileType.JSON_LINES), (".arrow", FileType.ARROW_FILE))


class GoodRecord(NamedTuple):
    """A good record; `line` is its canonical JSON, UTF-8, without a newline. One of the file may become
    several, of the same number."""

    number: int
    byte_offset: int
    record: Record
    line: bytes

    @property
    def messages(self) -> list[Message]:
        """Of a conversation; empty for a text."""
        return cast("list[Message]", self.record.get("messages", []))


class RecordFile:
    """One data file as an iterable of `GoodRecord | BadRecord`; iterate once.

    With `limit_bytes` only the file's head is read and a record that this cuts is left out (Parquet, Arrow:
    whole groups of rows). With `digest` every byte read also goes through it; where `is_hashed`, it is the
    file's once the iteration has ended by itself. A custom file holds no records, and is checked alone.
    """

    def __init__(
        self,
        path: Path,
        format: RecordFormat | Literal["auto"] = "auto",
        reading: Reading | None = None,
        *,
        limit_bytes: int | None = None,
        digest: Digest | None = None,
    ) -> None:
        self.path, self.reading = path, reading or Reading()
        self.kind = detect_file_type(path)
        self.size_bytes = path.stat().st_size
        self._source = Source(path, self.kind.compression, limit_bytes, digest)
        self._table_cut = False
        self._unread_columns: list[str] = []
        self.detected = format == "auto"
        self._given = None if format == "auto" else format
        self._raw = self._read_raw()
        self.format: RecordFormat
        self.format, first = self._detect() if format == "auto" else (format, {})
        self._reader = RecordReader(self.format, self.reading)
        self._reader.settle(first)
        self._good = 0
        if (self.format == "custom") != (self.kind.type is FileType.PYTHON):
            raise DataFileError(
                f"{self.kind} can't be read as {self.format}", "a custom data set is a file *.py"
            )
        if self.format == "custom":
            _check_custom(path)

    @property
    def bytes_read(self) -> int:
        """Of the file, so far; of Parquet and Arrow files, nothing until the end."""
        return self._source.bytes_read

    @property
    def whole(self) -> bool:
        """Whether all of the file was within the limit; known once it was read."""
        return not (self._source.cut or self._table_cut)

    @property
    def is_hashed(self) -> bool:
        """Whether it is read from front to back."""
        return self.kind.compression is not None or self.kind.type not in (*RANDOM_ACCESS, FileType.PYTHON)

    @property
    def lost(self) -> Lost:
        """What of the records is not passed on, and of how many records (`artifacts.formats`)."""
        return self._reader.lost + Lost(dict.fromkeys(self._unread_columns, self._good))

    @property
    def said(self) -> str:
        """File type and format in words, naming what was detected and a suffix that says otherwise."""
        text = f"{self.kind}, format {self.format}" + (" (detected)" if self.detected else "")
        if columns := self._reader.told_columns:
            text += f", column{'s' * (len(columns) > 1)} {' and '.join(columns)}"
        if useless := unused(self.format, self.reading):
            text += f", which has no use for {', '.join(useless)}"
        suffix = data_suffix(self.path)
        named, found = SUFFIXES.get(suffix), self.kind.type
        says_otherwise = named not in (None, found, FileType.LINES) and (suffix, found) not in _SAME
        return f"{text}; the suffix says {suffix}" if says_otherwise else text

    def __iter__(self) -> Iterator[GoodRecord | BadRecord]:
        reader, takes_as_is = self._reader, self._reader.takes_as_is
        for item in self._raw:
            if type(item) is BadRecord:
                if not (item.at_end and not self.whole):
                    yield dataclasses.replace(item, file=str(self.path))
                continue
            number, byte_offset, line, value, raw, at_end = cast(RawRecord, item)
            # What holds just messages, as most do, is canonical already: a line's very bytes are passed on.
            if takes_as_is and type(value) is dict and len(value) == 1 and is_plain(value.get("messages")):
                self._good += 1
                yield GoodRecord(number, byte_offset, value, raw or encode_record(value))
                continue
            try:
                records = reader.read(value)
                lines = [encode_record(record) for record in records]
            except RecordError as error:
                if at_end and not self.whole:
                    return
                yield BadRecord(number, byte_offset, line, str(error), str(self.path))
                continue
            self._good += 1
            for record, encoded in zip(records, lines, strict=True):
                yield GoodRecord(number, byte_offset, record, encoded)

    def _read_raw(self) -> Iterator[RawRecord | BadRecord]:
        try:
            match self.kind.type:
                case FileType.PYTHON:
                    return
                case FileType.PARQUET | FileType.ARROW_FILE | FileType.ARROW_STREAM:
                    yield from self._read_table()
                case _:
                    with self._source.open() as stream:
                        yield from self._read_text(stream)
                        drain(stream)
        except DamagedError as error:
            raise DataFileError(str(error), "copy or download it again") from None

    def _read_text(self, stream: BinaryIO) -> Iterator[RawRecord | BadRecord]:
        match self.kind.type:
            case FileType.CSV:
                from artifacts.csv_table import read_csv

                return read_csv(stream, json_columns(self.reading))
            case FileType.JSON_LIST:
                from artifacts.json_list import read_json_list

                return read_json_list(stream)
            case FileType.LINES | FileType.PARAGRAPHS:
                return read_text(stream, paragraphs=self.kind.type is FileType.PARAGRAPHS)
            case _:
                return read_json_lines(stream)

    def _read_table(self) -> Iterator[RawRecord | BadRecord]:
        from artifacts.arrow_table import TableReader

        table = TableReader(readable_columns(self._given, self.reading), self._source.limit_bytes)
        with contextlib.ExitStack() as stack:
            if self.kind.type is FileType.ARROW_STREAM:
                stream = stack.enter_context(self._source.open(limited=False))
                rows = table.arrow_stream(stream)
            else:
                path = stack.enter_context(self._source.on_disk())
                is_parquet = self.kind.type is FileType.PARQUET
                rows = table.parquet(path) if is_parquet else table.arrow_file(path)
            for row in rows:
                self._unread_columns = [name for name in table.columns if name not in table.read_columns]
                yield row
            self._table_cut = table.cut
            if self.kind.type is FileType.ARROW_STREAM and not table.cut:
                drain(stream)

    def _detect(self) -> tuple[RecordFormat, Record]:
        """The format of the first record that has one's columns, and it; those looked at are read again."""
        if self.kind.type is FileType.PYTHON:
            return "custom", {}
        looked_at = list(itertools.islice(self._raw, _LOOK_AT))
        self._raw = itertools.chain(looked_at, self._raw)
        for item in looked_at:
            value = item.value if isinstance(item, RawRecord) else None
            if isinstance(value, dict) and (found := detect_format(value, self.reading)):
                return found, value
        if not looked_at:
            raise DataFileError("the file holds no records")
        for item in looked_at:
            if isinstance(item, RawRecord) and isinstance(item.value, dict):
                reason = columns_reason(item.value) + _nested_hint(item.value)
                raise DataFileError(f"record {item.number}: {reason}")
        first = looked_at[0]
        if self.kind == (FileType.JSON_LINES, None) and _spans_lines(self.path):
            raise DataFileError(
                "JSON objects that span several lines", "put each on one line, or all into one list: [ …, … ]"
            )
        reason = first.reason if isinstance(first, BadRecord) else _reason(first.value)
        raise DataFileError(f"no usable record; record {first.number} (byte {first.byte_offset}): {reason}")


def _reason(value: object) -> str:
    try:
        RecordReader("messages", Reading()).read(value)
    except RecordError as error:
        return str(error)
    return "unknown format"


def _spans_lines(path: Path) -> bool:
    """Whether the file begins with one whole JSON object of several lines."""
    with path.open("rb") as stream:
        head = stream.read(BUFFER_BYTES).decode("utf-8-sig", "replace").strip()
    try:
        _, end = json.JSONDecoder().raw_decode(head)
    except (ValueError, RecursionError):
        return False
    return "\n" in head[:end]


def _nested_hint(value: dict[str, Any]) -> str:
    for name, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and detect_format(inner[0]):
            return f"; the records lie in the list '{name[:40]}': make that list the file"
    return ""


def _check_custom(path: Path) -> None:
    try:
        check_custom_file(path)
    except CustomFileError as error:
        raise DataFileError(error.why, error.way_out) from None
    except OSError as error:
        raise unreadable(error) from None
