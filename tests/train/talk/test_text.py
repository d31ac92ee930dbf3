"""Whole characters, and nothing of a text that ends the answer, however tokens part them."""

from __future__ import annotations

import itertools

import pytest

from tests.train.backends import BACKENDS
from train.talk.text import ByteDecoder, StopTexts, TokenDecoder

TEXTS = ("plain words, two  blanks", "你好 🤖 안녕", "tabs\tand\nlines\n", " leading", "👩‍👩‍👧 é")


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_and_join_to_the_text(name: str, text: str) -> None:
    backend = BACKENDS[name]()
    ids = backend.encode(text, add_special_tokens=False).ids
    decoder = TokenDecoder(backend)
    pieces = [decoder.feed(token) for token in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + decoder.flush() == backend.decode(ids)
    assert sum(map(bool, pieces)) > 1, "it comes in pieces"


def test_special_tokens_have_no_text() -> None:
    backend = BACKENDS["byte level"]()
    decoder = TokenDecoder(backend)
    ids = [backend.token_to_id("<|im_start|>"), *backend.encode("a", add_special_tokens=False).ids]
    assert [decoder.feed(token) for token in ids] == ["", "a"]


def test_bytes_that_become_no_character() -> None:
    backend = BACKENDS["byte level"]()
    half = backend.encode("𝔸", add_special_tokens=False).ids[0]
    decoder = TokenDecoder(backend)
    assert decoder.feed(half) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_bytes_to_characters() -> None:
    data = " 你好".encode()
    decoder = ByteDecoder(lambda token: data[token : token + 1], strips_blank=True)
    assert [decoder.feed(token) for token in range(len(data) - 1)] == ["", "", "", "你", "", ""]
    assert decoder.flush() == "\ufffd"


def stopped(pieces: list[str], *stops: str) -> tuple[str, bool]:
    """What is shown of a text that comes in `pieces`, and whether it was ended."""
    texts = StopTexts(stops)
    shown = ""
    for piece in pieces:
        shown += texts.feed(piece)
        if texts.found:
            return shown, True
    return shown + texts.flush(), False


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("one###two", ["###"], "one"),
        ("one##two#", ["###"], None),
        ("aab", ["ab"], "a"),
        ("aaab", ["aab"], "a"),
        ("xENDy", ["ENDy", "ND"], "xE"),  # which is complete first
        ("###", ["###"], ""),
        ("one", [""], None),
    ],
)
def test_a_stop_text_ends_the_answer_wherever_tokens_part_it(
    text: str, stops: list[str], shown: str | None
) -> None:
    expected = (text, False) if shown is None else (shown, True)
    for count in range(len(text)):
        for cuts in itertools.combinations(range(1, len(text)), count):
            ends = [0, *cuts, len(text)]
            pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
            assert stopped(pieces, *stops) == expected, pieces


def test_only_what_may_become_a_stop_is_held_back() -> None:
    texts = StopTexts(["</s>"])
    assert [texts.feed(piece) for piece in ("a<", "b", "</", "s", "x")] == ["a", "<b", "", "", "</sx"]
