"""The same records as every type of file, compressed or not."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.filetypes import FileType
from artifacts.head_check import check_head
from artifacts.readers import BadRecord, RawRecord, read_text
from artifacts.records import GoodRecord, RecordFile

ROWS = [{"question": f"q {number}?", "answer": f'a, "{number}"\né', "topic": "x"} for number in range(700)]
LINES = [
    f'{{"messages":[{{"role":"user","content":{json.dumps(row["question"])}}},'
    f'{{"role":"assistant","content":{json.dumps(row["answer"], ensure_ascii=False)}}}]}}'.encode()
    for row in ROWS
]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=300)
    return buffer.getvalue()


def as_arrow(rows: list[dict[str, Any]], open_writer: Any) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with open_writer(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    return buffer.getvalue()


TYPES = {
    "a.json": (FileType.JSON_LIST, json.dumps(ROWS).encode()),
    "a.jsonl": (FileType.JSON_LINES, b"\n".join(json.dumps(row).encode() for row in ROWS)),
    "a.csv": (FileType.CSV, as_csv(ROWS)),
    "a.tsv": (FileType.CSV, as_csv(ROWS, "\t")),
    "a.parquet": (FileType.PARQUET, as_parquet(ROWS)),
    "file.arrow": (FileType.ARROW_FILE, as_arrow(ROWS, pa.ipc.new_file)),
    "stream.arrow": (FileType.ARROW_STREAM, as_arrow(ROWS, pa.ipc.new_stream)),
}
PACK = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def written(folder: Path, name: str, suffix: str = "") -> tuple[Path, bytes]:
    content = PACK[suffix](TYPES[name][1])
    path = folder / f"{name}{suffix}"
    path.write_bytes(content)
    return path, content


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("name", TYPES)
def test_every_type_holds_the_same_records(name: str, suffix: str, tmp_path: Path) -> None:
    path, content = written(tmp_path, name, suffix)
    digest = hashlib.sha256()
    records = RecordFile(path, digest=digest)
    assert [item.line for item in records if isinstance(item, GoodRecord)] == LINES
    assert records.kind.type is TYPES[name][0]
    assert records.said == f"{records.kind}, format prompt_response (detected), columns question and answer"
    assert records.lost == {"topic": 700} and records.whole
    if records.is_hashed:
        assert digest.digest() == hashlib.sha256(content).digest()
        assert records.bytes_read == len(content)


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("name", TYPES)
def test_a_head_is_a_part_without_complaint(name: str, suffix: str, tmp_path: Path) -> None:
    path, _ = written(tmp_path, name, suffix)
    head = check_head(path, limit_bytes=4000)
    assert not head.problems and 0 < head.records < 700 and not head.whole
    assert check_head(path).whole


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", TYPES)
def test_a_cut_compressed_file_is_told(name: str, suffix: str, tmp_path: Path) -> None:
    path, content = written(tmp_path, name, suffix)
    path.write_bytes(content[:-20])
    assert "too early" in check_head(path).why or "not readable" in check_head(path).why


def test_nested_columns_and_their_nulls(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "q", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": '{"x": 1}'}]},
        {"role": "tool", "content": "1", "tool_calls": None},
        {"role": "assistant", "content": "One.", "tool_calls": None},
    ]
    (tmp_path / "a.arrow").write_bytes(
        as_arrow([{"messages": messages, "image": b"pixels"}], pa.ipc.new_stream)
    )
    records = RecordFile(tmp_path / "a.arrow")
    (item,) = records
    assert isinstance(item, GoodRecord) and records.lost == {"image": 1}
    assert item.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}


def test_a_cut_arrow_file_is_told(tmp_path: Path) -> None:
    for name in ("file.arrow", "stream.arrow"):
        path, content = written(tmp_path, name)
        path.write_bytes(content[: len(content) // 2])
        assert "not readable as an Arrow" in check_head(path).why


TEXTS = {
    "a line each": (b"one\r\ntwo\n\n", ["one", "two"]),
    "paragraphs": (b"\xef\xbb\xbf\n\none\nmore\n \n\ntwo\n\nthree", ["one\nmore", "two", "three"]),
    "prose that looks like data": (b"[1] Notes, output\n<b>", ["[1] Notes, output", "<b>"]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_plain_text(case: str, tmp_path: Path) -> None:
    content, expected = TEXTS[case]
    (tmp_path / "a.txt").write_bytes(content)
    records = RecordFile(tmp_path / "a.txt")
    items = list(records)
    assert [item.record["text"] for item in items if isinstance(item, GoodRecord)] == expected
    for item, text in zip(items, expected, strict=True):
        assert content[item.byte_offset :].startswith(text.encode()[:3])
    assert records.format == "text"


def test_over_long_text_is_refused_and_passed() -> None:
    lines, blocks = b"short\n" + b"x" * 50 + b"\nshort\n", b"a\n\n" + b"xy\n" * 20 + b"\nb"
    for content, paragraphs in ((lines, False), (blocks, True)):
        items = list(read_text(io.BytesIO(content), paragraphs=paragraphs, max_record_bytes=20))
        assert [type(item) for item in items] == [RawRecord, BadRecord, RawRecord]
    (bad,) = read_text(io.BytesIO(b"a\xff"))
    assert isinstance(bad, BadRecord) and "0xff at byte offset 1" in bad.reason


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(words, min_size=1))
def test_lines_come_back(texts: list[str]) -> None:
    items = list(read_text(io.BytesIO("\n".join(texts).encode())))
    assert [item.value["text"] for item in items if isinstance(item, RawRecord)] == texts


def test_a_custom_file_is_checked_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit\ndef get_custom_dataset(config, tokenizer, split): ...\n")
    head = check_head(path)
    assert (head.format, head.problems, head.said) == ("custom", [], "Python, format custom (detected)")
    path.write_text("def other(): ...\n")
    assert "defines no function get_custom_dataset (but other)" in check_head(path).why
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    assert "JSON lines can't be read as custom" in check_head(tmp_path / "a.jsonl", "custom").why
