"""A JSON list, record by record: one 5 GB list takes no more memory than its longest record."""

from __future__ import annotations

import codecs
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from artifacts.filetypes import BOM
from artifacts.formats.base import RecordError
from artifacts.readers import MAX_RECORD_BYTES, BadRecord, RawRecord, byte_length, json_reason, raw_decode

_BLOCK_BYTES = 256 * 1024
_BLANK_CHARACTERS = " \t\n\r"
_BLANK = re.compile(r"[ \t\n\r]+")
_COMMA = re.compile(r"[ \t\n\r]*(,)[ \t\n\r]*")
_TOKEN = re.compile(r'["\\\[\]{},]')
_LONGEST_TOKEN = 16  # characters of a JSON literal or escape: an error nearer to the end may be a cut


def read_json_list(
    stream: BinaryIO, *, max_record_bytes: int = MAX_RECORD_BYTES, block_bytes: int = _BLOCK_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """The elements of the list. After one that is not JSON, reading goes on behind the next comma that stands
    at the list's own level; where none is found within `max_record_bytes` the stream ends there."""
    text = _Window(stream, block_bytes)
    number, comma_at = 0, None  # comma_at: byte offset of the comma that promises a record
    if text.peek() != "[":
        yield BadRecord(1, text.byte_offset, text.line, "not a JSON list: it does not start with '['")
        return
    text.advance(1)
    while True:
        character = text.peek()
        if character == "]" and (number == 0 or comma_at is None):
            break
        number += 1
        start, line = text.byte_offset, text.line
        if character == "":
            reason = f"truncated JSON: the list is not closed, it ends at byte offset {start}"
            yield BadRecord(number, start, line, reason, at_end=True)
            return
        if character == "]":
            yield BadRecord(
                number, start, line, f"trailing comma at byte offset {comma_at}: no record follows"
            )
            break
        if number > 1 and comma_at is None:
            problem: RawRecord | BadRecord = BadRecord(number, start, line, "no comma before this record")
            found = text.skip_record(max_record_bytes)
        else:
            problem, found = _read_one(text, number, max_record_bytes)
        if not found and isinstance(problem, BadRecord):
            yield dataclasses.replace(problem, reason=f"{problem.reason}; what follows can't be read")
            return
        yield problem
        comma_at = text.skip_comma()
    text.advance(1)
    if text.peek():
        yield BadRecord(number + 1, text.byte_offset, text.line, "more text after the end of the list")


def _read_one(text: _Window, number: int, max_record_bytes: int) -> tuple[RawRecord | BadRecord, bool]:
    """The record at the window's position, and whether the window now stands behind it."""
    start, line = text.byte_offset, text.line
    try:
        value, length = text.decode(max_record_bytes)
    except RecordError as error:
        bad = BadRecord(number, start, line, str(error), at_end=isinstance(error, _CutError))
        return bad, text.skip_record(max_record_bytes)
    raw = text.advance(length)
    if text.has_escapes:
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8: byte 0x{raw[error.start]:02x} at byte offset {start + error.start}"
            return BadRecord(number, start, line, reason), True
    one_line = text.line == line and b"\r" not in raw
    return RawRecord(number, start, line, value, raw if one_line else None), True


class _CutError(RecordError):
    """The record may be fine but for the end of the file."""


class _Window:
    """The text around the reading position. Bytes that are not UTF-8 become lone surrogates U+DC80 to U+DCFF
    (`surrogateescape`), so that structure and offsets hold and the record can be named."""

    def __init__(self, stream: BinaryIO, block_bytes: int) -> None:
        self._stream, self._block_bytes = stream, block_bytes
        self._text, self._position = "", 0
        self._undecoded = b""
        self.byte_offset, self.line = 0, 1  # of the position
        self.ended = False  # the stream is: the window holds all that is left
        self.has_escapes = False  # from the first one met on
        while not self._text and not self.ended:
            self._fill()
        if self._text.startswith("\ufeff"):
            self._position, self.byte_offset = 1, len(BOM)

    def peek(self) -> str:
        """The next character that is not blank, having stepped up to it; "" at the end."""
        while True:
            character = self._text[self._position : self._position + 1]
            if character and character not in _BLANK_CHARACTERS:
                return character
            if match := _BLANK.match(self._text, self._position):
                self.advance(match.end() - self._position)
            if self._position == len(self._text):
                if self.ended:
                    return ""
                self._fill()

    def advance(self, characters: int) -> bytes:
        """Step over what lies in the window; returns its bytes."""
        passed = self._text[self._position : self._position + characters]
        raw = passed.encode("utf-8", "surrogateescape")
        self._position += len(passed)
        self.byte_offset += len(raw)
        self.line += raw.count(b"\n")
        return raw

    def skip_comma(self) -> int | None:
        """Step over a comma, if one is next; returns its byte offset."""
        if match := _COMMA.match(self._text, self._position):  # mostly all in the window
            start = self.byte_offset
            self._position = match.end()
            self.byte_offset += match.end() - match.start()
            self.line += self._text.count("\n", match.start(), match.end())
            return start + match.start(1) - match.start()
        if self.peek() != ",":
            return None
        self.advance(1)
        return self.byte_offset - 1

    def decode(self, max_bytes: int) -> tuple[Any, int]:
        """(value, its characters) at the position, reading on until it is whole. Raises RecordError."""
        while True:
            try:
                value, end = raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_TOKEN
                if self.ended or not cut:
                    kind = _CutError if cut else RecordError
                    raise kind(json_reason(error, self._text, self._base())) from None
            except (ValueError, RecursionError) as error:
                raise RecordError(json_reason(error, self._text, self._base())) from None
            else:
                near_end = end > len(self._text) - _LONGEST_TOKEN
                number_may_go_on = isinstance(value, (int, float)) and near_end and not self.ended
                if not number_may_go_on:
                    if end - self._position > max_bytes:
                        raise RecordError(f"longer than {max_bytes} bytes")
                    return value, end - self._position
            held = len(self._text) - self._position
            if held > max_bytes:
                raise RecordError(f"longer than {max_bytes} bytes")
            self._fill(held)  # as much again: parsing anew stays linear in the record's length

    def skip_record(self, max_bytes: int) -> bool:
        """Move to the ',' or ']' that ends the record at the position; False where none is in reach."""
        depth, in_text, escaped_at = 0, False, -1
        skipped = 0
        while skipped <= max_bytes:
            for match in _TOKEN.finditer(self._text, self._position):
                token, at = match.group(), match.start()
                if at == escaped_at:
                    continue
                if token == "\\":
                    escaped_at = at + 1 if in_text else -1
                elif token == '"':
                    in_text = not in_text
                elif in_text:
                    continue
                elif depth == 0 and token in ",]":
                    self.advance(at - self._position)
                    return True
                elif token != ",":
                    depth = max(0, depth + (1 if token in "[{" else -1))
            escaped_at = 0 if escaped_at == len(self._text) else -1
            skipped += len(self.advance(len(self._text)))
            if self.ended:
                return False
            self._fill()
        return False

    def _base(self) -> int:
        """Byte offset of the window's first character."""
        return self.byte_offset - byte_length(self._text[: self._position])

    def _fill(self, at_least: int = 0) -> None:
        """Drop what was passed, take in the next block."""
        block = self._stream.read(max(self._block_bytes, at_least))
        self.ended = not block
        data = self._undecoded + block
        try:
            more, used = codecs.utf_8_decode(data, "strict", self.ended)
        except UnicodeDecodeError:
            more, used = codecs.utf_8_decode(data, "surrogateescape", self.ended)
            self.has_escapes = True
        self._undecoded = data[used:]
        self._text, self._position = self._text[self._position :] + more, 0
