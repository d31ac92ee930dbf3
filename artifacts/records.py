"""Data files in, conversations out: JSON list, JSON lines, CSV or Parquet, in the formats `messages` and
`alpaca`, streamed in bounded memory.

    records = RecordFile(path)
    for item in records:            # Conversation | BadRecord
        ...
    print(records.said)             # "JSON lines, format alpaca (detected)"

Raises DataFileError where the file as a whole is no data file.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, cast

from artifacts.contract import RecordFormat
from artifacts.conversations import (
    Message,
    RecordError,
    columns_reason,
    conversation,
    detect_format,
    encode_record,
    ignored_columns,
)
from artifacts.data_report import DataReport, FileReport, SplitReport
from artifacts.filetypes import SUFFIXES, DataFileError, FileType, detect_file_type
from artifacts.readers import BadRecord, RawRecord, read_json_lines

__all__ = [
    "BadRecord",
    "Conversation",
    "DataFileError",
    "DataReport",
    "Digest",
    "FileReport",
    "HeadCheck",
    "RecordFile",
    "SplitReport",
    "check_head",
]

HEAD_BYTES = 64 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_LOOK_AT = 100  # records, to detect the format


class Digest(Protocol):
    """A hash that is fed, as hashlib's are."""

    def update(self, data: memoryview, /) -> object: ...


class Conversation(NamedTuple):
    """A good record; `line` is its canonical JSON, UTF-8, without a newline."""

    number: int
    byte_offset: int
    messages: list[Message]
    line: bytes


class RecordFile:
    """One data file as an iterable of `Conversation | BadRecord`; iterate once.

    With `limit_bytes` only the file's head is read and a record that this cuts is left out (Parquet: whole
    row groups up to that size). With `digest` every byte read also goes through it; it is the file's once
    the iteration has ended by itself (not for Parquet, which is not read from front to back).
    """

    def __init__(
        self,
        path: Path,
        format: RecordFormat | Literal["auto"] = "auto",
        *,
        limit_bytes: int | None = None,
        digest: Digest | None = None,
    ) -> None:
        self.path = path
        self.file_type = detect_file_type(path)
        self.size_bytes = path.stat().st_size
        self.ignored_columns: set[str] = set()
        self._source = _Source(path, limit_bytes, digest)
        self._raw = self._read_raw()
        self.detected = format == "auto"
        self.format: RecordFormat = self._detect() if format == "auto" else format

    @property
    def bytes_read(self) -> int:
        """Of the file, so far; of Parquet, nothing until the end."""
        return self._source.bytes_read

    @property
    def whole(self) -> bool:
        """Whether the end of the file is within the limit."""
        return self._source.whole

    @property
    def said(self) -> str:
        """File type and format in words, naming what was detected and a suffix that says otherwise."""
        text = f"{self.file_type}, format {self.format}" + (" (detected)" if self.detected else "")
        suffix = self.path.suffix.lower()
        named = SUFFIXES.get(suffix)
        both_json = suffix == ".json" and self.file_type is FileType.JSON_LINES
        return text if named in (None, self.file_type) or both_json else f"{text}; the suffix says {suffix}"

    def __iter__(self) -> Iterator[Conversation | BadRecord]:
        format = self.format
        for item in self._raw:
            if type(item) is BadRecord:
                if not (item.at_end and not self.whole):
                    yield dataclasses.replace(item, file=str(self.path))
                continue
            number, byte_offset, line, value, raw, at_end = cast(RawRecord, item)
            try:
                messages = conversation(value, format)
            except RecordError as error:
                if at_end and not self.whole:
                    return
                yield BadRecord(number, byte_offset, line, str(error), str(self.path))
                continue
            if len(value) > 1:
                self.ignored_columns.update(ignored_columns(value, format))
            # A line that holds just the messages is its own canonical form: its bytes are passed on.
            as_is = raw is not None and len(value) == 1 and messages is value.get("messages")
            yield Conversation(
                number, byte_offset, messages, raw if as_is and raw else encode_record(messages)
            )

    def _read_raw(self) -> Iterator[RawRecord | BadRecord]:
        match self.file_type:
            case FileType.PARQUET:
                from artifacts.tables import read_parquet

                yield from read_parquet(self.path, limit_bytes=self._source.limit_bytes)
                return
            case FileType.CSV:
                from artifacts.tables import read_csv as read
            case FileType.JSON_LIST:
                from artifacts.json_list import read_json_list as read
            case FileType.JSON_LINES:
                read = read_json_lines
        with self._source.open() as stream:
            yield from read(stream)
            while stream.read(_BUFFER_BYTES):  # what stands behind the last record counts for the digest
                pass

    def _detect(self) -> RecordFormat:
        """The format of the first record that has one's columns; the records looked at are read again."""
        looked_at = list(itertools.islice(self._raw, _LOOK_AT))
        self._raw = itertools.chain(looked_at, self._raw)
        for item in looked_at:
            value = item.value if isinstance(item, RawRecord) else None
            if isinstance(value, dict) and (found := detect_format(value)):
                return found
        if not looked_at:
            raise DataFileError("the file holds no records")
        for item in looked_at:
            if isinstance(item, RawRecord) and isinstance(item.value, dict):
                raise DataFileError(
                    f"record {item.number}: {columns_reason(item.value)}{_nested_hint(item.value)}"
                )
        first = looked_at[0]
        if self.file_type is FileType.JSON_LINES and _spans_lines(self.path):
            raise DataFileError(
                "JSON objects that span several lines", "put each on one line, or all into one list: [ …, … ]"
            )
        reason = first.reason if isinstance(first, BadRecord) else _reason(first.value)
        raise DataFileError(f"no usable record; record {first.number} (byte {first.byte_offset}): {reason}")


def _reason(value: object) -> str:
    try:
        conversation(value, "messages")
    except RecordError as error:
        return str(error)
    return "unknown format"


def _spans_lines(path: Path) -> bool:
    """Whether the file begins with one whole JSON object of several lines."""
    with path.open("rb") as stream:
        head = stream.read(_BUFFER_BYTES).decode("utf-8-sig", "replace").strip()
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


def _unreadable(error: OSError) -> DataFileError:
    return DataFileError(f"can't be read: {error.strerror or error}")


class _Source(io.RawIOBase):
    """The file's bytes up to a limit, counted and hashed as they pass."""

    def __init__(self, path: Path, limit_bytes: int | None, digest: Digest | None) -> None:
        self.limit_bytes, self.bytes_read = limit_bytes, 0
        self.whole = limit_bytes is None or path.stat().st_size <= limit_bytes
        self._path, self._digest = path, digest

    def open(self) -> BinaryIO:
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError as error:
            raise _unreadable(error) from None
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self.limit_bytes is not None:
            view = view[: max(0, self.limit_bytes - self.bytes_read)]
        try:
            count = self._file.readinto(view) or 0
        except OSError as error:
            raise _unreadable(error) from None
        self.bytes_read += count
        if self._digest is not None:
            self._digest.update(view[:count])
        return count

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


@dataclass(frozen=True, kw_only=True)
class HeadCheck:
    """What the first bytes of a data file say. `why` is set where the file as a whole can't be used."""

    path: str
    said: str = ""
    format: RecordFormat | None = None
    records: int = 0  # good ones
    bad_records: int = 0
    bad: list[BadRecord] = field(default_factory=list)  # the first ones
    whole: bool = False  # the head was all of it
    why: str = ""
    way_out: str = ""

    @property
    def problems(self) -> list[str]:
        """One line each; empty when the head is fine."""
        if self.why:
            return [f"{self.path}: {self.why}" + (f"; {self.way_out}" if self.way_out else "")]
        lines = [str(bad) for bad in self.bad]
        if self.bad_records > len(self.bad):
            lines.append(f"{self.path}: and {self.bad_records - len(self.bad)} more bad records")
        return lines


def check_head(
    path: Path,
    format: RecordFormat | Literal["auto"] = "auto",
    limit_bytes: int = HEAD_BYTES,
    *,
    listed: int = 10,
) -> HeadCheck:
    """Read the file's first `limit_bytes` as the data stage would; the record cut at the end is no problem.

    Never raises for what the file holds. A file without one good record in its head has `why` set.
    """
    check = HeadCheck(path=str(path))
    good = bad_count = 0
    bad: list[BadRecord] = []
    try:
        records = RecordFile(path, format, limit_bytes=limit_bytes)
        check = dataclasses.replace(check, said=records.said, format=records.format, whole=records.whole)
        for item in records:
            if isinstance(item, BadRecord):
                bad_count += 1
                if len(bad) < listed:
                    bad.append(item)
            else:
                good += 1
    except DataFileError as error:
        return dataclasses.replace(check, why=error.why, way_out=error.way_out)
    if not good:
        why = f"no usable record; {bad[0]}" if bad else "the file holds no records"
        return dataclasses.replace(check, bad_records=bad_count, bad=bad, why=why)
    return dataclasses.replace(check, records=good, bad_records=bad_count, bad=bad)
