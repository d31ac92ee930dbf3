from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.formats.spacing import fix_record, fix_spacing


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("I do n't know .", "I don't know."),
        ("He said , it 's fine !", "He said, it's fine!"),
        ("We 'll see ; they 've gone : why ?", "We'll see; they've gone: why?"),
        ("I 'm sure you 'd say they 're here .", "I'm sure you'd say they're here."),
        ("CA N'T", "CAN'T"),
        ("She did n’t ; it ’s late .", "She didn’t; it’s late."),
        ("( see below )", "(see below)"),
        ("100 % sure .", "100% sure."),
        ("end .\nNext , line", "end.\nNext, line"),
        ('" Yes . "', '" Yes. "'),
        (" He goes . ", "He goes."),
    ],
)
def test_repairs(before: str, after: str) -> None:
    assert fix_spacing(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "a very valuable view",  # a list that is known for `" v"` to `"v"` makes "averyvaluable" of it
        "a .5 mm drill and .NET",
        "the 's' key",
        "rock 'n' roll",
        "n't",
        "say 'hello' twice",
        "x = [1, 2]",
        "two  spaces",
        "",
    ],
)
def test_what_is_no_remnant_of_tokens_stays(text: str) -> None:
    assert fix_spacing(text) == text


@given(st.text(st.sampled_from("ab .,!?'n t’s()\n\"")))
def test_nothing_but_spaces_goes(text: str) -> None:
    fixed = fix_spacing(text)
    assert fixed.replace(" ", "") == text.replace(" ", "")
    assert fixed.count("\n") == text.count("\n")


def test_of_a_record_all_that_is_said() -> None:
    assert fix_record({"text": "a ."}) == {"text": "a."}
    call = {"role": "assistant", "content": "b !", "train": False}
    record = {"messages": [{"role": "user", "content": "a ?"}, call], "tools": []}
    assert fix_record(record) == {
        "messages": [{"role": "user", "content": "a?"}, {**call, "content": "b!"}],
        "tools": [],
    }
