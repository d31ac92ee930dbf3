"""A data file as a stream of parsed records, in bounded memory, with each record's number and byte offset.

What can't be parsed comes as a `BadRecord` in its place, and the stream goes on where the next record can be
found. Nothing here knows what a record means: `artifacts.formats` does.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, NoReturn

from artifacts.filetypes import BOM
from artifacts.formats.base import RecordError

#: No record may be longer: 16 MiB is millions of tokens, and a parsed record takes several times its bytes.
MAX_RECORD_BYTES = 16 * 1024 * 1024
_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be used. `number` counts from 1; `byte_offset` is where it begins in the file (in
    Parquet, where its row group does); `line` counts from 1, None in Parquet."""

    number: int
    byte_offset: int
    line: int | None
    reason: str
    file: str = ""
    at_end: bool = False  # spoilt by the end of the file: of no weight where only a head was read

    @property
    def place(self) -> str:
        line = "" if self.line is None else f"line {self.line}, "
        return f"record {self.number} ({line}byte {self.byte_offset})"

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.reason}"


class RawRecord(NamedTuple):
    number: int
    byte_offset: int
    line: int | None
    value: Any
    raw: bytes | None  # its JSON where that stands on one line
    at_end: bool = False  # as BadRecord's


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordError(f"the key {twice[:40]!r} appears twice in one object")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise RecordError(f"{name} is not JSON; leave the column out or write null")


raw_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).raw_decode


def parse_json(raw: bytes, byte_offset: int = 0) -> Any:
    """The one JSON value that `raw` is. `byte_offset` of `raw` in its file makes the reason's positions
    absolute. Raises RecordError."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RecordError(
            f"invalid UTF-8: byte 0x{raw[error.start]:02x} at byte offset {byte_offset + error.start}"
        ) from None
    try:
        value, end = raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(json_reason(error, text, byte_offset)) from None
    if end != len(text):
        raise RecordError(
            f"more text after the record, at byte offset {byte_offset + byte_length(text[:end])}"
        )
    return value


def json_reason(error: Exception, text: str, byte_offset: int) -> str:
    """json's error in plain words. `byte_offset` is that of `text` in the file."""
    if isinstance(error, RecursionError):
        return "nested too deeply (hundreds of brackets inside each other)"
    if not isinstance(error, json.JSONDecodeError):
        return "a number with too many digits" if "integer string conversion" in str(error) else str(error)
    position = error.pos
    where = f"at byte offset {byte_offset + byte_length(text[:position])}"
    before, after = text[max(0, position - 64) : position].rstrip(), text[position : position + 64].lstrip()
    if error.msg.startswith("Unterminated string"):
        return f"truncated JSON: the text that starts {where} is not closed"
    if error.msg.startswith("Illegal trailing comma") or (before.endswith(",") and after[:1] in ("}", "]")):
        return f"trailing comma {where}"
    if not after and not error.msg.startswith("Invalid"):
        return f"truncated JSON: it ends {where}"
    if error.msg.startswith("Invalid control character"):
        return (
            f"a control character (0x{ord(text[position]):02x}) inside a text {where}; write it as an escape"
        )
    if error.msg.startswith("Expecting property name") and after.startswith("'"):
        return f"single quotes {where}; JSON wants double quotes"
    if after.startswith(("None", "True", "False")):
        return f"Python's {after.split(',')[0].split('}')[0][:5]} {where}; JSON writes null, true, false"
    return f"not JSON: {error.msg[0].lower()}{error.msg[1:]} {where} (near {after[:16]!r})"


def byte_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def read_json_lines(
    stream: BinaryIO, *, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """One JSON value a line; blank lines don't count as records."""
    number = line_number = end = 0
    for line in iter(functools.partial(stream.readline, max_record_bytes + 1), b""):
        start = end
        end += len(line)
        line_number += 1
        if start == 0 and line.startswith(BOM):
            line, start = line[len(BOM) :], len(BOM)
        raw = line.strip(_BLANK)
        if not raw:
            continue
        number += 1
        if len(line) > max_record_bytes:
            end += _skip_line(stream) if not line.endswith(b"\n") else 0
            yield BadRecord(number, start, line_number, f"longer than {max_record_bytes} bytes")
            continue
        try:
            value = parse_json(raw, start + line.index(raw[:1]))
        except RecordError as error:
            yield BadRecord(number, start, line_number, str(error), at_end=not line.endswith(b"\n"))
            continue
        yield RawRecord(number, start, line_number, value, raw)


def _skip_line(stream: BinaryIO) -> int:
    """Read to the line's end; the bytes passed."""
    skipped = 0
    while part := stream.readline(1024 * 1024):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def read_text(
    stream: BinaryIO, *, paragraphs: bool = False, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """Plain text as records `{"text": …}`: a line each, or all lines between two blank ones."""
    number = end = 0
    held = _Held()
    lines = itertools.chain(iter(functools.partial(stream.readline, max_record_bytes + 1), b""), [b""])
    for line_number, line in enumerate(lines, 1):
        start = end
        end += len(line)
        if start == 0 and line.startswith(BOM):
            line, start = line[len(BOM) :], len(BOM)
        if len(line) > max_record_bytes and not line.endswith(b"\n"):
            end += _skip_line(stream)
        blank = not line.strip()
        if not blank:
            held.add(line, start, line_number, max_record_bytes)
        if held.lines and (blank or not paragraphs):
            number += 1
            yield held.record(number, max_record_bytes)
            held = _Held()


class _Held:
    """The lines of one text, as far as they may be kept."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.start = self.line = self._size_bytes = 0

    def add(self, line: bytes, start: int, line_number: int, max_record_bytes: int) -> None:
        if not self.lines:
            self.start, self.line = start, line_number
        self._size_bytes += len(line)
        if self._size_bytes <= max_record_bytes or not self.lines:
            self.lines.append(line)

    def record(self, number: int, max_record_bytes: int) -> RawRecord | BadRecord:
        raw, at_end = b"".join(self.lines), not self.lines[-1].endswith(b"\n")
        if self._size_bytes > max_record_bytes:
            return BadRecord(number, self.start, self.line, f"longer than {max_record_bytes} bytes")
        try:
            value = {"text": raw.decode().rstrip("\r\n")}
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8: byte 0x{raw[error.start]:02x} at byte offset {self.start + error.start}"
            return BadRecord(number, self.start, self.line, reason, at_end=at_end)
        return RawRecord(number, self.start, self.line, value, None, at_end)
