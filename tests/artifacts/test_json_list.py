from __future__ import annotations

import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.json_list import read_json_list
from artifacts.readers import BadRecord, RawRecord

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
blocks = st.integers(1, 40)


class Dribble(io.RawIOBase):
    """Gives at most as many bytes at a time as the next of `sizes`, over and over."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._stream, self._sizes, self._turn = io.BytesIO(data), sizes, 0

    def read(self, size: int = -1) -> bytes:
        self._turn += 1
        return self._stream.read(min(size, self._sizes[self._turn % len(self._sizes)]))


@settings(max_examples=300, deadline=None)
@given(
    records=st.lists(values, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    sizes=st.lists(blocks, min_size=1, max_size=5),
    block_bytes=blocks,
)
def test_equals_parsing_the_whole_whatever_the_blocks(
    records: list[object], indent: int | None, ascii_only: bool, sizes: list[int], block_bytes: int
) -> None:
    data = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = list(read_json_list(Dribble(data, sizes), block_bytes=block_bytes))
    try:
        data.decode()
    except UnicodeDecodeError:
        assert any(isinstance(item, BadRecord) for item in found)
        return
    assert [item.value for item in found if isinstance(item, RawRecord)] == records
    assert [item.number for item in found] == list(range(1, len(records) + 1))
    for item in found:
        assert isinstance(item, RawRecord)
        value, _ = json.JSONDecoder().raw_decode(data[item.byte_offset :].decode())
        assert value == item.value
        assert item.line == data[: item.byte_offset].count(b"\n") + 1
        assert item.raw is None or json.loads(item.raw) == item.value


mutations = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(list(b'[]{},:"\\ \nx1\xff'))), max_size=3)


@settings(max_examples=400, deadline=None)
@given(
    records=st.lists(values, max_size=4),
    mutations=mutations,
    sizes=st.lists(blocks, min_size=1, max_size=5),
)
def test_a_problem_is_found_exactly_where_the_whole_does_not_parse(
    records: list[object], mutations: list[tuple[int, int]], sizes: list[int]
) -> None:
    data = bytearray(json.dumps(records, ensure_ascii=False).encode("utf-8", "replace"))
    for position, byte in mutations:
        data[position % len(data)] = byte
    found = list(read_json_list(Dribble(bytes(data), sizes), block_bytes=16))
    good = [item.value for item in found if isinstance(item, RawRecord)]
    whole = parse(bytes(data))
    if isinstance(whole, list):
        assert good == whole and len(found) == len(good)
    else:
        assert any(isinstance(item, BadRecord) for item in found)
    at_once = read_json_list(io.BytesIO(data))
    assert [(type(item), item.byte_offset) for item in found] == [
        (type(item), item.byte_offset) for item in at_once
    ]


def parse(data: bytes) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return json.loads(data.decode(), object_pairs_hook=unique)
    except ValueError:
        return None


def test_a_record_over_the_bound_is_not_held() -> None:
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            self.largest = max(self.largest, size or 0)
            return super().read(size)

    stream = Counting(b'["' + b"x" * 100_000 + b'", 1]')
    found = list(read_json_list(stream, max_record_bytes=1000, block_bytes=64))
    assert isinstance(found[0], BadRecord) and "longer than 1000 bytes" in found[0].reason
    assert stream.largest <= 2000


def test_the_search_for_the_next_record_is_bounded() -> None:
    (bad,) = read_json_list(
        io.BytesIO(b'[{"a" 1, "b": "' + b"x" * 10_000 + b'"}, 2]'), max_record_bytes=100, block_bytes=64
    )
    assert isinstance(bad, BadRecord) and "what follows can't be read" in bad.reason
