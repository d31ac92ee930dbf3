from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.formats import encode_record
from artifacts.head_check import check_head
from artifacts.records import BadRecord, DataFileError, GoodRecord, RecordFile
from tests.artifacts.bad_data import ALPACA, BAD_FILES, GOOD, BadFile

MESSAGES = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
SUFFIXES = [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ""]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def conversations(path: Path, **options: object) -> list[list[dict[str, str]]]:
    """All good; each canonical line says the same."""
    found = []
    for item in RecordFile(path, **options):
        assert isinstance(item, GoodRecord), str(item)
        assert json.loads(item.line) == {"messages": item.messages} and b"\n" not in item.line
        found.append(item.messages)
    return found


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.name)
def test_bad_files_are_named_in_plain_words(case: BadFile, tmp_path: Path) -> None:
    check = check_head(write(tmp_path, case.name, case.content))
    text = "\n".join(check.problems)
    for fragment in (case.name, *case.expected):
        assert fragment in text
    assert "Traceback" not in text and len(check.problems[0]) < 600


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to("gone.json")
    expected = {
        tmp_path: "a folder",
        tmp_path / "pipe": "a pipe",
        tmp_path / "loop": "symbolic links",
        tmp_path / "nowhere": "symbolic link to gone.json, which does not exist",
        tmp_path / "missing": "no such file",
        Path("/dev/null"): "not a regular file",
        tmp_path / ("long" * 100): "name too long",
    }
    for path, fragment in expected.items():
        assert fragment.lower() in check_head(path).why.lower(), path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"\xef\xbb\xbf [\n" + GOOD + b"\n]\n", "JSON list, format messages (detected)"),
        ("a.jsonl", b"[" + GOOD + b"]", "JSON list, format messages (detected); the suffix says .jsonl"),
        ("a.json", GOOD + b"\n\n" + GOOD, "JSON lines, format messages (detected)"),
        ("a", b"\xef\xbb\xbf" + ALPACA, "JSON lines, format alpaca (detected)"),
        ("a.csv", b"instruction,output\n2 + 2?,4\n", "CSV, format alpaca (detected)"),
        ("a.txt", b"\xef\xbb\xbfoutput;instruction\r\n4;2 + 2?\r\n", "CSV, format alpaca (detected)"),
        ("a.tsv", b"instruction\toutput\n2 + 2?\t4", "CSV, format alpaca (detected)"),
    ],
)
def test_file_type_and_format_are_detected_and_said(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name, content)
    assert RecordFile(path).said == said
    assert all(messages == MESSAGES for messages in conversations(path))


def test_a_given_format_is_not_detected(tmp_path: Path) -> None:
    both = json.dumps({"messages": MESSAGES, "instruction": "a", "output": "b"}).encode()
    path = write(tmp_path, "both.jsonl", both)
    assert RecordFile(path).format == "messages"
    (messages,) = conversations(path, format="alpaca")
    assert messages[0]["content"] == "a"


def test_alpaca_becomes_a_conversation(tmp_path: Path) -> None:
    record = {
        "instruction": "Translate.",
        "input": "Hund",
        "output": "dog",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
        "id": 7,
    }
    path = write(
        tmp_path, "a.json", json.dumps([record, {"instruction": "x", "output": "y", "input": None}]).encode()
    )
    records = RecordFile(path)
    full, short = [item.messages for item in records if isinstance(item, GoodRecord)]
    assert [(turn["role"], turn["content"]) for turn in full] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\nHund"),
        ("assistant", "dog"),
    ]
    assert [turn["content"] for turn in short] == ["x", "y"]
    assert records.lost == {"id": 1}


def test_canonical_line_keeps_only_role_and_content(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": 'a "b"\n\u2028', "name": "x"},
        {"content": "é\t", "role": "assistant"},
    ]
    path = write(tmp_path, "a.jsonl", json.dumps({"messages": turns}).encode())
    (messages,) = conversations(path)
    assert messages == [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def test_numbers_offsets_and_lines_point_at_the_record(tmp_path: Path) -> None:
    records = ['{"instruction": "ü", "output": "b"}', "{}", '{"instruction":\n"a", "output": ""}', "1"]
    content = ("\n[ " + ",\r\n ".join(records) + "]").encode()
    bad = [item for item in RecordFile(write(tmp_path, "a.json", content)) if isinstance(item, BadRecord)]
    assert [(item.number, item.line) for item in bad] == [(2, 3), (3, 4), (4, 6)]
    for item in bad:
        assert content[item.byte_offset :].startswith(records[item.number - 1].encode())


def test_reading_goes_on_behind_a_bad_record(tmp_path: Path) -> None:
    spoilt = [
        b'{"instruction": "a" "output": "b"}',
        b"[" * 3000 + b"]" * 3000,
        b'{"a": "x, ]\\"", tru}',
        b"{'a'}",
        b"",
    ]
    content = b"[" + b",".join(part for bad in spoilt for part in (bad, ALPACA)) + b"]"
    items = list(RecordFile(write(tmp_path, "a.json", content)))
    assert [type(item) for item in items] == [BadRecord, GoodRecord] * len(spoilt)
    assert [item.number for item in items] == list(range(1, 11))


def test_over_long_records_are_refused_and_passed(tmp_path: Path) -> None:
    long = b'{"instruction": "' + b"a" * 17 * 1024 * 1024 + b'", "output": "b"}'
    for name, content in {
        "a.jsonl": b"\n".join([ALPACA, long, ALPACA]),
        "a.json": b"[" + b",".join([ALPACA, long, ALPACA]) + b"]",
    }.items():
        items = list(RecordFile(write(tmp_path, name, content)))
        assert [type(item) for item in items] == [GoodRecord, BadRecord, GoodRecord]
        assert isinstance(items[1], BadRecord) and "longer than 16777216 bytes" in items[1].reason


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "messages": [MESSAGES, None, [*MESSAGES, {"role": "user", "content": "more"}], MESSAGES],
            "score": [1.0, 2.0, 3.0, 4.0],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    records = RecordFile(tmp_path / "a.parquet")
    items = list(records)
    assert records.said == "Parquet, format messages (detected)"
    assert [type(item) for item in items] == [GoodRecord, BadRecord, BadRecord, GoodRecord]
    second, third = items[1:3]
    assert isinstance(second, BadRecord) and (second.number, second.line) == (2, None)
    assert isinstance(third, BadRecord) and third.byte_offset > second.byte_offset > 0

    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    assert "not readable as Parquet" in check_head(tmp_path / "cut.parquet").why
    invalid = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers())
    pq.write_table(pa.table({"instruction": invalid, "output": ["a", "b"]}), tmp_path / "utf8.parquet")
    good, bad = list(RecordFile(tmp_path / "utf8.parquet"))
    assert isinstance(good, GoodRecord) and isinstance(bad, BadRecord) and "0xff" in bad.reason


def test_digest_is_the_files(tmp_path: Path) -> None:
    rest = b" more" * 1_000_000
    files = {"a.jsonl": GOOD + b"\n\n", "a.json": b" [" + GOOD + b"] \n", "b.json": b"[" + GOOD + b"]" + rest}
    for name, content in files.items():
        digest = hashlib.sha256()
        records = RecordFile(write(tmp_path, name, content), digest=digest)
        list(records)
        assert digest.digest() == hashlib.sha256(content).digest() and records.bytes_read == len(content)


def test_the_record_that_the_heads_end_cuts_is_no_problem(tmp_path: Path) -> None:
    files = {
        "a.jsonl": b"\n".join([GOOD] * 5),
        "a.json": b"[" + b", ".join([GOOD] * 5) + b"]",
        "a.csv": 'instruction,output\n"a\né",b\n"c","d"\n'.encode() * 1,
    }
    for name, content in files.items():
        path = write(tmp_path, name, content)
        for limit in range(content.index(b"b\n") + 2 if name == "a.csv" else len(GOOD) + 1, len(content) + 2):
            check = check_head(path, limit_bytes=limit)
            assert not check.problems and check.records >= 1, (name, limit, check)
            assert check.whole == (limit >= len(content))


def test_head_check_of_a_small_file_is_fast(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", (GOOD + b"\n") * 300)
    check_head(path)
    start = time.process_time()
    check = check_head(path)
    assert check.records == 300 and check.whole and time.process_time() - start < 0.1


def test_bad_records_beyond_the_listed_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", GOOD + b"\n" + b"{}\n" * 25)
    check = check_head(path, listed=3)
    assert (check.records, check.bad_records, len(check.bad)) == (1, 25, 3)
    assert "and 22 more bad records" in check.problems[-1]


# --- properties ---------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
bits = st.sampled_from(
    [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\n", b"\r\n", b"\xff", b"\0", b"PAR1"]
)
pieces = (
    bits
    | st.sampled_from([GOOD, ALPACA, b"instruction,output\n", b"a,b\n", b"\xef\xbb\xbf"])
    | st.binary(max_size=6)
)
any_bytes = st.lists(pieces, max_size=12).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(content=any_bytes, suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_yield_records_or_problems(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp(), f"any{suffix}", content)
    check = check_head(path)
    assert check.records or check.why
    assert check.why or check.said
    try:
        items = list(RecordFile(path))
    except DataFileError:
        return
    assert [item.number for item in items] == sorted(item.number for item in items)
    for item in items:
        assert 0 <= item.byte_offset <= len(content)
        if isinstance(item, GoodRecord):
            assert json.loads(item.line.decode()) == item.record


@given(contents=st.lists(st.text('ab\\"\n\t\0\x1f\x7fé\u2028😀/') | st.text(), min_size=1))
def test_the_canonical_line_is_json_on_one_line(contents: list[str]) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    line = encode_record({"messages": messages})
    assert json.loads(line) == {"messages": messages} and b"\n" not in line and b"\r" not in line


rows = st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(rows=rows)
def test_csv_equals_the_csv_module(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    usable = [row for row in rows if not any(cell.isspace() or "\0" in cell for cell in row)]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("instruction", "output"), *usable])
    path = write(tmp_path_factory.getbasetemp(), "rows.csv", text.getvalue().encode())
    if usable:
        found = [(turns[0]["content"], turns[1]["content"]) for turns in conversations(path)]
        assert found == usable
