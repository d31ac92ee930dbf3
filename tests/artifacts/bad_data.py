"""Data files that can't be used, and words that the message about each must hold."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass


@dataclass(frozen=True)
class BadFile:
    name: str  # with the suffix that the file gets
    content: bytes
    expected: tuple[str, ...]


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.jsonl", "{}")
    return buffer.getvalue()


def _turns(*turns: tuple[object, object], **more: object) -> bytes:
    return json.dumps(
        {"messages": [{"role": role, "content": content} for role, content in turns], **more}
    ).encode()


GOOD = _turns(("user", "2 + 2?"), ("assistant", "4"))
ALPACA = b'{"instruction": "2 + 2?", "output": "4"}'

BAD_FILES = [
    # the file as a whole
    BadFile("empty.jsonl", b"", ("empty (0 bytes)",)),
    BadFile("blank.json", b" \n\t\r\n" * 30_000, ("nothing but blank space",)),
    BadFile("bom_only.json", b"\xef\xbb\xbf", ("nothing but blank space",)),
    BadFile("packed.jsonl", b"\x1f\x8b\x08\x00rest", ("gzip", "ends too early", "download it again")),
    BadFile("archive.json", _zip(), ("ZIP archive", "unpack")),
    BadFile("zstd.jsonl", b"\x28\xb5\x2f\xfd\x00", ("damaged zstd data", "ends too early")),
    BadFile(
        "lfs.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("Git LFS", "git lfs pull")
    ),
    BadFile("page.json", b"<!DOCTYPE html><html></html>", ("HTML", "download")),
    BadFile("utf16.csv", "instruction,output\na,b\n".encode("utf-16"), ("UTF-16", "UTF-8")),
    BadFile("utf16_no_mark.json", '{"a": 1}'.encode("utf-16-le"), ("NUL",)),
    BadFile("prose", b"once upon a time", ("can't tell what it is", "once upon a time")),
    BadFile("fake.parquet", b"once upon a time", ("named .parquet", "PAR1")),
    BadFile("cut.parquet", b"PAR1" + b"\0" * 100, ("not readable as Parquet",)),
    BadFile("empty_list.json", b"[]", ("no records",)),
    BadFile("header_only.csv", b"instruction,output\n", ("no records",)),
    BadFile(
        "pretty.json",
        json.dumps({"instruction": "a", "output": "b"}, indent=2).encode(),
        ("several lines", "["),
    ),
    BadFile("wrapped.json", b'{"data": [' + ALPACA + b"]}", ("found data", "list 'data'")),
    # columns
    BadFile(
        "typo.json", b'[{"instrction": "a", "output": "b"}]', ("instrction", "did you mean 'instruction'")
    ),
    BadFile("sharegpt.json", b'[{"conversations": []}]', ("conversations is an empty list",)),
    BadFile(
        "columns.csv", b"poem,critique\na,b\n", ("found poem, critique", "wanted: messages", "prompt_column")
    ),
    BadFile("same_column.csv", b"instruction,output,output\na,b,c\n", ("'output' twice",)),
    BadFile("numbers.json", b"[1, 2, 3]", ("not an object but the number 1",)),
    # single records
    BadFile(
        "later_columns.jsonl",
        ALPACA + b'\n{"instruction": "a"}\n',
        ("record 2 (line 2, byte 41)", "wrong columns"),
    ),
    BadFile(
        "other_format.jsonl",
        ALPACA + b"\n" + GOOD,
        ("record 2", "wanted: instruction and output", "of the format messages, the file is read as alpaca"),
    ),
    BadFile("not_object.jsonl", GOOD + b"\n[]\n", ("record 2", "not an object but a list")),
    BadFile(
        "role.jsonl", _turns(("human", "a"), ("assistant", "b")), ("unknown role", "'human'", "mean user")
    ),
    BadFile("role_type.jsonl", _turns((["user"], "a"), ("assistant", "b")), ("unknown role",)),
    BadFile(
        "empty_content.jsonl", _turns(("user", "a"), ("assistant", " \n")), ("message 2 (assistant)", "empty")
    ),
    BadFile(
        "null_content.jsonl", _turns(("user", "a"), ("assistant", None)), ("message 2", "null, not text")
    ),
    BadFile("number_content.jsonl", _turns(("user", 5), ("assistant", "a")), ("the number 5, not text",)),
    BadFile("no_answer.jsonl", _turns(("user", "a")), ("no assistant message",)),
    BadFile(
        "last_user.jsonl",
        _turns(("user", "a"), ("assistant", "b"), ("user", "c")),
        ("last message is from user",),
    ),
    BadFile("assistant_first.jsonl", _turns(("assistant", "b")), ("assistant before any user",)),
    BadFile("two_systems.jsonl", _turns(("system", "a"), ("system", "b")), ("second system message",)),
    BadFile("late_system.jsonl", _turns(("user", "a"), ("system", "b")), ("system message must come first",)),
    BadFile(
        "lone_tool.jsonl",
        _turns(("user", "a"), ("tool", "b"), ("assistant", "c")),
        ("tool right after user",),
    ),
    BadFile("no_messages.jsonl", b'{"messages": []}', ("empty list",)),
    BadFile("messages_text.jsonl", b'{"messages": "hello"}', ("messages is the text 'hello', not a list",)),
    BadFile(
        "message_keys.jsonl", b'{"messages": [{"from": "human", "value": "a"}]}', ("ShareGPT", "role/content")
    ),
    BadFile("null_output.json", b'[{"instruction": "a", "output": null}]', ("output is null",)),
    BadFile("nan_output.json", b'[{"instruction": "a", "output": NaN}]', ("NaN is not JSON",)),
    BadFile(
        "history.json", b'[{"instruction": "a", "output": "b", "history": [["q"]]}]', ("history 1", "pair")
    ),
    BadFile(
        "history_type.json", b'[{"instruction": "a", "output": "b", "history": 3}]', ("history", "number 3")
    ),
    BadFile("surrogate.json", b'[{"instruction": "a", "output": "\\udc80"}]', ("lone surrogate (\\udc80)",)),
    BadFile("nul.json", b'[{"instruction": "a", "output": "b\\u0000"}]', ("NUL",)),
    BadFile(
        "duplicate_key.jsonl",
        GOOD + b'\n{"messages": 1, "messages": 2}',
        ("record 2", "'messages' appears twice"),
    ),
    # text that is not JSON, CSV or UTF-8
    BadFile("utf8.jsonl", GOOD + b'\n{"messages": "\xff"}\n', ("record 2", "0xff at byte offset 107")),
    BadFile(
        "utf8.json",
        b"[" + ALPACA + b', {"instruction": "\xc3", "output": "b"}]',
        ("record 2", "0xc3 at byte offset 60"),
    ),
    BadFile(
        "utf8.csv", b"instruction,output\na,b\nc,\xe9\n", ("record 2 (line 3, byte 23)", "byte offset 25")
    ),
    BadFile("truncated.json", b"[" + ALPACA + b', {"instruction": "a', ("record 2", "truncated JSON")),
    BadFile("unclosed_list.json", b"[" + ALPACA, ("list is not closed",)),
    BadFile("truncated.jsonl", GOOD + b"\n" + GOOD[:30], ("record 2", "truncated JSON")),
    BadFile("trailing_comma.json", b"[" + ALPACA + b",\n]", ("trailing comma at byte offset 41",)),
    BadFile("inner_comma.json", b'[{"instruction": "a", "output": "b",}]', ("trailing comma",)),
    BadFile("no_comma.json", b"[" + ALPACA + b"\n" + ALPACA + b"]", ("record 2", "no comma")),
    BadFile("two_lists.json", b"[" + ALPACA + b"]\n[" + ALPACA + b"]", ("after the end of the list",)),
    BadFile("single_quotes.jsonl", b"{'instruction': 'a'}", ("single quotes",)),
    BadFile("python_none.jsonl", b'{"instruction": "a", "output": None}', ("Python's None",)),
    BadFile("two_on_a_line.jsonl", ALPACA + b" " + ALPACA, ("more text after the record",)),
    BadFile("control.jsonl", b'{"instruction": "a\tb", "output": "c"}', ("control character (0x09)",)),
    BadFile("long_number.jsonl", b'{"messages": ' + b"1" * 5000 + b"}", ("too many digits",)),
    BadFile("nested.json", b"[" * 5000 + b"]" * 5000, ("nested too deeply",)),
    BadFile("nested.jsonl", b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}", ("nested too deeply",)),
    BadFile(
        "ragged.csv", b"instruction,output\na,b\nc\n", ("record 2", "the header has 2 columns, this row 1")
    ),
    BadFile("open_quote.csv", b'instruction,output\na,b\n"c,d\ne,f\n', ("record 2", "never closed")),
    BadFile("after_quote.csv", b'instruction,output\n"a"b,c\n', ("not CSV",)),
    BadFile("bare_return.csv", b"instruction,output\ra,b\r", ("carriage return",)),
    BadFile("cell.csv", b"messages\n[{]\n", ("column messages", "not JSON")),
    BadFile("header_utf8.csv", b"instruction,output,\xff\na,b,c\n", ("header is not UTF-8",)),
]
