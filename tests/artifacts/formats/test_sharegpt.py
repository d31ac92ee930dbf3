from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.formats.reading import read, reason, turns


def said(*pairs: tuple[object, object], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in pairs], **more}


@pytest.mark.parametrize(
    ("user", "assistant"), [("human", "gpt"), ("user", "assistant"), ("human", "assistant")]
)
def test_names_of_sharegpt_and_qwen(user: str, assistant: str) -> None:
    record = said((user, "a"), (assistant, "b"), id="identity_0")
    assert read("conversations", record) == ([turns("a", "b")], {"id": 1})


def test_calls_join_the_assistants_turn() -> None:
    record = said(
        ("human", "q"),
        ("gpt", "One moment."),
        ("function_call", '{"name": "f", "arguments": {"x": 1}}'),
        ("function_call", '[{"name": "g", "arguments": "{}"}]'),
        ("observation", "1"),
        ("gpt", "One."),
        system="Be brief.",
        tools='[{"name": "f"}]',
    )
    (found,), lost = read("conversations", record)
    calls = [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        {"type": "function", "function": {"name": "g", "arguments": {}}},
    ]
    assert found["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "One moment.", "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]
    assert found["tools"] == [{"type": "function", "function": {"name": "f"}}] and not lost


def test_tags_name_keys_and_roles() -> None:
    record = {"chat": [{"who": "Anna", "says": "a"}, {"who": "Bot", "says": "b", "train": True}]}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "Anna", "assistant_tag": "Bot"}
    found, lost = read("conversations", record, columns={"messages": "chat"}, tags=tags)
    assert found == [turns("a", "b")] and not lost


def test_role_and_content_are_read_as_well() -> None:
    assert read("conversations", {"conversations": turns("a", "b")["messages"]})[0] == [turns("a", "b")]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (said(("huamn", "a")), "message 1: unknown role 'huamn'; roles are human,"),
        (said(("huamn", "a")), "did you mean human?"),
        (said((3, "a")), "unknown role the number 3"),
        (said(("human", "a"), ("gpt", None)), "message 2 (assistant): content is null, not text"),
        (said(("system", "a"), ("system", "b")), "a second system message"),
        (said(("system", "a"), ("human", "q"), ("gpt", "r"), system="b"), "two system messages: message 1"),
        (
            said(("human", "a"), ("function_call", "now")),
            "message 2 (function_call) is text that is not JSON",
        ),
        (said(("human", "a"), ("human", "b")), "no assistant message"),
        ({"conversations": {"from": "human"}}, "conversations is an object, not a list"),
        ({"conversations": ["hi"]}, "message 1: not an object but the text 'hi'"),
        ({"conversations": [{"from": "human"}]}, "message 1: no value; found from"),
        ({"chat": []}, "wrong columns: found chat; wanted: conversations (optional system, tools)"),
    ],
)
def test_what_is_wrong_is_named(record: dict[str, Any], expected: str) -> None:
    assert expected in reason("conversations", record)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4))
def test_every_word_arrives(pairs: list[tuple[str, str]]) -> None:
    if any(not word.strip() or "\0" in word for pair in pairs for word in pair):
        return
    words = [word for pair in pairs for word in pair]
    record = said(*(turn for q, a in pairs for turn in (("human", q), ("gpt", a))))
    assert read("conversations", record)[0] == [turns(*words)]
