"""Texts of others on a terminal."""

from __future__ import annotations

import pytest

from artifacts.terminal import harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 你好 👩‍👧 é\n", "plain 你好 👩‍👧 é\n"),
        ("wide\u3000and\u00a0narrow\u2009blanks", "wide\u3000and\u00a0narrow\u2009blanks"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("over\rwritten\x08\x7f", "over\\rwritten\\x08\\x7f"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),  # C1: some terminals take them as ESC [
        ("\u202eturned\u2066", "\\u202eturned\\u2066"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_is_written_out(text: str, shown: str) -> None:
    assert harmless(text) == shown
