from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.errors import UserError
from launcher.spec.scalars import parse_scalar
from launcher.spec.yaml import MAX_BYTES, MAX_DEPTH, Position, decode, parse, read_mapping

# Examples of YAML 1.2.2, section 10.3.2, and what YAML 1.1 took for something else.
SCALARS = {
    **{"": None, "~": None, "null": None, "NULL": None, "nuLL": "nuLL"},
    **{"true": True, "False": False, "TRUE": True, "tRUE": "tRUE"},
    **{"no": "no", "yes": "yes", "on": "on", "off": "off", "y": "y"},
    **{"0": 0, "-19": -19, "+12": 12, "010": 10, "0o10": 8, "0x1F": 31, "0o8": "0o8", "0b11": "0b11"},
    **{"1e-5": 1e-5, "1E5": 1e5, "2e-4": 2e-4, ".5": 0.5, "1.": 1.0, "-0.0": -0.0, "12e03": 12000.0},
    **{"1_000": "1_000", "1:30": "1:30", "1.2.3": "1.2.3", "2026-11-21": "2026-11-21", "e5": "e5", ".": "."},
    **{".inf": math.inf, "-.Inf": -math.inf, "+.INF": math.inf, "inf": "inf", "nan": "nan"},
}

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
#: Time is no matter on a busy machine.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Text in which YAML's signs are common.
YAMLISH = st.text(
    st.sampled_from("ab1 \n\t-:#{}[],?&*!|>'\"%@`\\<~=\r\ufeff\x85é") | st.characters(), max_size=40
)


@pytest.mark.parametrize("text", SCALARS)
def test_core_schema(text: str) -> None:
    assert parse_scalar(text) == SCALARS[text]
    assert type(parse_scalar(text)) is type(SCALARS[text])
    quoted = parse(json.dumps(text), "f").value
    assert quoted == text


def test_not_a_number() -> None:
    value = parse_scalar(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_positions_of_keys_and_values() -> None:
    document = parse("# job\nname: bot\ndata:\n  train:\n  - a\n  - {b: 1}\nafter: [x, 'y']\nempty:\n", "f")
    assert document.value == {
        "name": "bot",
        "data": {"train": ["a", {"b": 1}]},
        "after": ["x", "y"],
        "empty": None,
    }
    assert document.keys["name",] == Position(2, 1)
    assert document.values["name",] == Position(2, 7)
    assert document.keys["data", "train"] == Position(4, 3)
    assert document.values["data", "train", 1] == Position(6, 5)
    assert document.keys["data", "train", 1, "b"] == Position(6, 6)
    assert document.values["after", 1] == Position(7, 12)
    assert document.values[()] == Position(2, 1)


def test_spans_are_the_written_scalars_and_flow_collections() -> None:
    text = "a: one two  # c\nb: 'three'\nc: [4, é]\n"
    document = parse(text, "f")
    written = {path: text[start:end] for path, (start, end) in document.spans.items()}
    assert written == {("a",): "one two", ("b",): "'three'", ("c",): "[4, é]", ("c", 0): "4", ("c", 1): "é"}


def test_so_many_repeated_keys_are_enough() -> None:
    with pytest.raises(UserError) as raised:
        parse("a: 1\n" * 1000, "f")
    assert len(raised.value.problems) == 20


def test_every_repeated_key_is_told() -> None:
    with pytest.raises(UserError) as raised:
        parse("a: {x: 1}\nb: 1\na: {x: 2}\nb: 2\nb: 3\n", "f")
    assert [problem.where for problem in raised.value.problems] == ["f:3:1", "f:4:1", "f:5:1"]


def test_depth_limit_is_exact() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f").value is not None
    with pytest.raises(UserError, match="more than 32 levels"):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "f")


def test_size_limit_is_exact() -> None:
    assert parse("#" * MAX_BYTES, "f").value is None
    with pytest.raises(UserError, match="too large"):
        parse("é" * (MAX_BYTES // 2) + "x", "f")


def test_number_of_values_is_limited() -> None:
    """Before the whole file is parsed, which takes a minute for half a million."""
    with pytest.raises(UserError, match="more than 20,000 values"):
        parse("[" + "a," * (MAX_BYTES // 2 - 1) + "]", "f")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "- " * 5000,
        "{a: " * 5000,
        "? " * 5000,
        "".join(" " * depth + "a:\n" for depth in range(500)),
    ],
    ids=["brackets", "dashes", "braces", "keys", "indentation"],
)
def test_nesting_of_any_kind_is_refused_at_once(text: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(text, "f")
    assert len(raised.value.problems) == 1


def test_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse(decode(b"\xef\xbb\xbfa: 1", "f"), "f").keys == {("a",): Position(1, 1)}
    with pytest.raises(UserError, match=r"f:2:2 .* 0xff at byte offset 6"):
        decode(b"\xef\xbb\xbfa\nb\xff", "f")


def test_surrogate_pairs_are_joined_and_halves_refused() -> None:
    assert parse(r'"\ud83d\ude00"', "f").value == "😀"
    with pytest.raises(UserError, match="surrogate"):
        parse(r'"\ud83d"', "f")


def test_read_mapping_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("a: 1\r\nb: 2\r\n", newline="")
    assert read_mapping(path).keys["b",] == Position(2, 1)


@UNHURRIED
@given(VALUES)
def test_json_reads_as_itself(value: Any) -> None:
    """JSON is a subset of YAML 1.2."""
    assert parse(json.dumps(value), "f").value == value
    assert parse(json.dumps(value, indent=2), "f").value == value


@UNHURRIED
@given(VALUES)
def test_positions_lead_to_the_values(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=True)
    document = parse(text, "f")
    assert set(document.keys) == {path for path in document.values if path and isinstance(path[-1], str)}
    for path, (start, end) in document.spans.items():
        assert json.loads(text[start:end]) == _at(value, path)
        assert document.values[path] == Position(1, start + 1)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


@given(YAMLISH)
@settings(UNHURRIED, max_examples=500)
def test_any_text_gives_a_value_or_a_user_error(text: str) -> None:
    try:
        value = parse(text, "f").value
    except UserError as error:
        assert str(error).startswith("f:")
    else:
        json.dumps(value)


@UNHURRIED
@given(st.binary(max_size=60))
def test_any_bytes_give_text_or_a_user_error(data: bytes) -> None:
    try:
        parse(decode(data, "f"), "f")
    except UserError as error:
        assert str(error).startswith("f:")
