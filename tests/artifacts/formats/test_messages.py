from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.formats import Lost, RecordError, is_plain
from artifacts.formats.messages import canonical_messages
from tests.artifacts.formats.reading import read, reason, turns

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "…", "parameters": {}}}


def assistant(**more: Any) -> dict[str, Any]:
    """A conversation whose last message is made of `more`."""
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **more}]}


def test_tools_calls_and_reasoning_are_kept() -> None:
    record = {
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [{"id": "1", **CALL}]},
            {"role": "tool", "content": "", "tool_call_id": "1"},
            {"role": "assistant", "content": "No.", "reasoning": "An empty answer."},
        ],
        "tools": [TOOL],
    }
    (found,), lost = read("messages", record)
    assert found["messages"][1] == {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    assert found["messages"][2:] == [
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "No.", "reasoning_content": "An empty answer."},
    ]
    assert found["tools"] == [TOOL]
    assert lost == {"tool_calls[].id": 1, "messages[].tool_call_id": 1}


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
        {"function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"tool_calls": '[{"name": "weather", "arguments": {"city": "Oslo"}}]'},
    ],
)
def test_calls_of_every_shape_become_one(call: dict[str, Any]) -> None:
    (found,), _ = read("messages", assistant(content=None, **call))
    assert found["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize("mark", [{"train": False}, {"loss": False}, {"weight": 0}])
def test_a_turn_can_be_left_unlearnt(mark: dict[str, Any]) -> None:
    record = turns("a", "b", "c", "d")
    record["messages"][1] |= mark
    (found,), lost = read("messages", record)
    assert [message.get("train") for message in found["messages"]] == [None, False, None, None]
    assert not lost
    record["messages"][3] |= mark
    assert "nothing to learn" in reason("messages", record)


def test_learning_what_the_user_says_is_no_matter_of_a_message() -> None:
    record = turns("a", "b")
    record["messages"][0]["train"] = True
    assert read("messages", record) == ([turns("a", "b")], {"messages[].train": 1})


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    (found,), _ = read("messages", assistant(content=parts))
    assert found["messages"][1]["content"] == "xy"
    image = [*parts, {"type": "image_url", "image_url": {"url": "…"}}]
    assert "a part of type 'image_url'; only text" in reason("messages", assistant(content=image))


def test_a_column_can_hold_the_system_message() -> None:
    record = turns("a", "b", system="Be brief.")
    (found,), lost = read("messages", record)
    assert found["messages"][0] == {"role": "system", "content": "Be brief."} and not lost
    record["messages"].insert(0, {"role": "system", "content": "Be long."})
    assert reason("messages", record) == "two system messages: message 1 and the column 'system'"


def test_an_empty_system_message_is_one() -> None:
    """It tells a template not to write its own."""
    record = {"messages": [{"role": "system", "content": ""}, *turns("a", "b")["messages"]]}
    assert read("messages", record)[0] == [record]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (assistant(content="a", tool_calls=[{"function": {}}]), "tool_calls[0] has no function name"),
        (
            assistant(content="a", tool_calls=[{"name": "f", "arguments": "{"}]),
            "message 2 (assistant): tool_calls[0]: arguments is text that is not JSON",
        ),
        (assistant(content="a", tool_calls=[{"name": "f", "arguments": [1]}]), "a list, not an object"),
        (assistant(content="a", train="no"), "train is the text 'no', not true or false"),
        (assistant(content="", reasoning="because"), "message 2 (assistant): content is empty"),
        (assistant(content="a", reasoning=3), "reasoning is the number 3, not text"),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": [CALL]}]},
            "message 1 (user): tool_calls are the assistant's",
        ),
        (turns("a", "b", tools=[{"description": "nameless"}]), "tools[0] has no function name"),
        (turns("a", "b", tools="weather"), "tools is text that is not JSON"),
        (turns("a", "b", tools=3), "tools is the number 3, not a list of tools"),
    ],
)
def test_what_is_wrong_is_named(record: dict[str, Any], expected: str) -> None:
    assert expected in reason("messages", record)


words = st.text(st.sampled_from("ab \n\0é\ud800"), max_size=4)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "human"]) | st.integers()},
    optional={"content": words | st.none() | st.integers(), "name": words},
)


@given(st.lists(message, max_size=5))
def test_the_quick_look_agrees_with_the_slow_one(messages: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(messages)
    quick = is_plain(messages)
    try:
        found, lost = canonical_messages(messages, lost := Lost()), lost
    except RecordError:
        assert not quick
    else:
        # Only an empty system message or tool's answer, or another key, needs the slow look.
        special = any(len(each) > 2 or not each["content"].strip() for each in messages)
        assert quick != special and (lost or found == messages)
    assert messages == before
