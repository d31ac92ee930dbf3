from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.formats.reading import read, reason, turns


def test_text_is_kept_as_it_is() -> None:
    assert read("text", {"text": " a\n\n大 ", "id": 1}) == ([{"text": " a\n\n大 "}], {"id": 1})


def test_guanaco() -> None:
    text = "### Human: a\n b### Assistant: c### Human: d\n### Assistant: e"
    assert read("turns", {"text": text}) == ([turns("a\n b", "c", "d", "e")], {})


def test_a_question_without_an_answer_is_left_out_and_counted() -> None:
    found, lost = read("turns", {"text": "### Human: a### Assistant: b### Human: c"})
    assert found == [turns("a", "b")] and lost == {"last turn without an answer": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("once upon a time", "text before the first '### Human:'"),
        ("Well. ### Human: a### Assistant: b", "text before the first '### Human:': 'Well.'"),
        ("### Human: a", "no assistant message"),
        ("### Human: a### Assistant: ", "message 2 (assistant): content is empty"),
        ("### Assistant: a", "assistant before any user message"),
        (None, "text is null, not text"),
    ],
)
def test_what_is_wrong_is_named(text: str | None, expected: str) -> None:
    assert expected in reason("turns", {"text": text})


@pytest.mark.parametrize("text", ["", " \n", 3, "a\0"])
def test_what_is_no_text_is_refused(text: object) -> None:
    assert reason("text", {"text": text}).startswith("text ")


word = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="#"), min_size=1
)


@given(st.lists(st.tuples(word, word), min_size=1, max_size=4))
def test_turns_come_back(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"### Human: {q}### Assistant: {a}" for q, a in pairs)
    assert read("turns", {"text": text})[0] == [turns(*(part for pair in pairs for part in pair))]
