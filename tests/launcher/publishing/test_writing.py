"""Names from outside stay names."""

from __future__ import annotations

import re

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.publishing import licence, writing

HOSTILE = [
    "---\nlicense: mit\n---",
    "a: b",
    "- x",
    "'",
    '"',
    "{{ 7 * 7 }}",
    "!!python/object/apply:os.system ['true']",
    "x # y",
    "\u2028license: mit",
    "\x85license: mit",
    "\ud800",
    "&a *a",
    "%TAG",
    "? |",
    "null",
    "1e3",
]
texts = st.text(max_size=40) | st.sampled_from(HOSTILE)


@settings(max_examples=25)
@given(texts, st.lists(texts, max_size=3))
@example("---\nlicense: mit\n---", ["---"])
def test_no_name_breaks_the_front_matter(name: str, tags: list[str]) -> None:
    values = {"base_model": name, "tags": tags, "nested": [{"name": name, "value": 1.5}]}
    text = writing.yaml(values)
    card = f"---\n{text}---\n\n# {writing.escaped(name)}\n"
    kept = " ".join(writing.printable(name).split())
    expected = {
        "base_model": kept,
        "tags": [" ".join(writing.printable(tag).split()) for tag in tags],
        "nested": [{"name": kept, "value": 1.5}],
    }
    assert licence.front_matter(card) == expected
    assert pyyaml.safe_load(text) == expected  # what the hub's own client reads it with
    card.encode()


@given(texts)
def test_a_name_is_one_line_without_markup(name: str) -> None:
    text = writing.escaped(name)
    assert "\n" not in text and "<" not in text
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|]", text)
    assert not re.match(r"[#>+-]", text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x>", "&lt;img src=x>"),
        ("[x](http://evil)", "\\[x\\](http&#58;//evil)"),
        ("@somebody www.x.org", "&#64;somebody ww&#119;.x.org"),
        ("# heading", "\\# heading"),
        ("1. item", "1\\. item"),
        ("0.25", "0.25"),
        ("two\nlines", "two lines"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markup_is_escaped(text: str, escaped: str) -> None:
    assert writing.escaped(text) == escaped


@pytest.mark.parametrize("text", ["``` x", "a ```` b", "plain", "\n```\n# out\n"])
def test_a_block_ends_where_it_ends(text: str) -> None:
    first, *_, last = writing.block(text).splitlines()
    assert first == last and set(first) == {"`"}
    assert first not in text


def test_code_spans() -> None:
    assert writing.code("abc") == "`abc`"
    assert writing.code("a`b|c") == "`` a`b¦c ``"
