"""A JSON list, record by record: one 5 GB list takes no more memory than its longest record."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from artifacts.conversations import RecordError
from artifacts.filetypes import BOM
from artifacts.readers import MAX_RECORD_BYTES, BadRecord, RawRecord, _byte_length, _decode, json_reason

_BLOCK_BYTES = 1024 * 1024
_BLANK = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'["\\\[\]{},]')
_LONGEST_TOKEN = 16  # characters of a JSON literal or escape: an error nearer to the end may be a cut


def read_json_list(
    stream: BinaryIO, *, max_record_bytes: int = MAX_RECORD_BYTES, block_bytes: int = _BLOCK_BYTES
) -> Iterator[RawRecord | BadRecord]:
    """The elements of the list. After one that is not JSON, reading goes on behind the next comma that stands
    at the list's own level; where none is found within `max_record_bytes` the stream ends there."""
    text = _Window(stream, block_bytes)
    number, comma_at = 0, None  # comma_at: byte offset of the comma that promises a record
    text.skip_blank()
    if text.peek() != "[":
        yield BadRecord(1, text.byte_offset, text.line, "not a JSON list: it does not start with '['")
        return
    text.advance(1)
    while True:
        text.skip_blank()
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
        if not found:
            assert isinstance(problem, BadRecord)
            yield BadRecord(
                number, start, line, f"{problem.reason}; what follows can't be read", at_end=text.ended
            )
            return
        yield problem
        text.skip_blank()
        comma_at = text.byte_offset if text.peek() == "," else None
        if comma_at is not None:
            text.advance(1)
    text.advance(1)
    text.skip_blank()
    if text.peek():
        yield BadRecord(number + 1, text.byte_offset, text.line, "more text after the end of the list")


def _read_one(text: _Window, number: int, max_record_bytes: int) -> tuple[RawRecord | BadRecord, bool]:
    """The record at the window's position, and whether the window now stands behind it."""
    start, line = text.byte_offset, text.line
    try:
        value, length = text.decode(max_record_bytes)
    except RecordError as error:
        return BadRecord(number, start, line, str(error)), text.skip_record(max_record_bytes)
    try:
        raw = text.advance(length).encode()
    except UnicodeEncodeError as error:  # an escaped byte, see _Window
        record = str(error.object)
        invalid_at = start + _byte_length(record[: error.start])
        reason = f"invalid UTF-8: byte 0x{ord(record[error.start]) - 0xDC00:02x} at byte offset {invalid_at}"
        return BadRecord(number, start, line, reason), True
    one_line = b"\n" not in raw and b"\r" not in raw
    return RawRecord(number, start, line, value, raw if one_line else None), True


class _Window:
    """The text around the reading position. Bytes that are not UTF-8 become lone surrogates U+DC80 to U+DCFF
    (`surrogateescape`), so that structure and offsets hold and the record can be named."""

    def __init__(self, stream: BinaryIO, block_bytes: int) -> None:
        self._stream, self._block_bytes = stream, block_bytes
        self._text, self._position = "", 0
        self._undecoded = b""
        self.byte_offset, self.line = 0, 1  # of the position
        self.ended = False  # the stream is: the window holds all that is left
        self._fill()
        if self.peek() == "\ufeff":
            self._position, self.byte_offset = 1, len(BOM)

    def peek(self) -> str:
        """The next character; "" at the end."""
        while self._position == len(self._text) and not self.ended:
            self._fill()
        return self._text[self._position : self._position + 1]

    def advance(self, characters: int) -> str:
        """Step over what lies in the window; returns it."""
        passed = self._text[self._position : self._position + characters]
        self._position += len(passed)
        self.byte_offset += _byte_length(passed)
        self.line += passed.count("\n")
        return passed

    def skip_blank(self) -> None:
        while True:
            match = _BLANK.match(self._text, self._position)
            if match and match.end() > self._position:
                self.advance(match.end() - self._position)
            if self._position < len(self._text) or self.ended:
                return
            self._fill()

    def decode(self, max_bytes: int) -> tuple[Any, int]:
        """(value, its characters) at the position, reading on until it is whole. Raises RecordError."""
        while True:
            try:
                value, end = _decode(self._text, self._position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_TOKEN
                if self.ended or not cut:
                    raise RecordError(json_reason(error, self._text, self._base())) from None
            except (ValueError, RecursionError) as error:
                raise RecordError(json_reason(error, self._text, self._base())) from None
            else:
                number_may_go_on = (
                    end == len(self._text) and isinstance(value, (int, float)) and not self.ended
                )
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
        return self.byte_offset - _byte_length(self._text[: self._position])

    def _fill(self, at_least: int = 0) -> None:
        """Drop what was passed, take in the next block."""
        block = self._stream.read(max(self._block_bytes, at_least))
        self.ended = not block
        data = self._undecoded + block
        try:
            more, used = codecs.utf_8_decode(data, "strict", self.ended)
        except UnicodeDecodeError:
            more, used = codecs.utf_8_decode(data, "surrogateescape", self.ended)
        self._undecoded = data[used:]
        self._text, self._position = self._text[self._position :] + more, 0
