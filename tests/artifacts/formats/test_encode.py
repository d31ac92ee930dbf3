from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.formats import RecordError, encode_record

words = st.text('ab\\"\n\t\0\x1f\x7fé\u2028😀/') | st.text()
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": words},
    optional={"train": st.just(False), "reasoning_content": words},
)
records = st.fixed_dictionaries({"messages": st.lists(message, min_size=1)}) | st.fixed_dictionaries(
    {"text": words}
)


@given(records)
def test_the_line_says_the_record(record: dict[str, Any]) -> None:
    line = encode_record(record)
    assert json.loads(line) == record and b"\n" not in line and b"\r" not in line


def test_plain_messages_have_one_form() -> None:
    messages = [{"content": "é\n", "role": "user"}, {"role": "assistant", "content": "b"}]
    assert (
        encode_record({"messages": messages}).decode()
        == '{"messages":[{"role":"user","content":"é\\n"},{"role":"assistant","content":"b"}]}'
    )


def test_half_a_character_in_a_tool_is_refused() -> None:
    tools = [{"type": "function", "function": {"name": "\ud800"}}]
    with pytest.raises(RecordError, match="lone surrogate"):
        encode_record({"messages": [], "tools": tools})
