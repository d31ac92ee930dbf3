"""Texts of others on a terminal."""

from __future__ import annotations

import unicodedata

#: Line ends, and what joins or parts letters and emoji.
_HARMLESS = "\n\u200c\u200d"


def harmless(text: str) -> str:
    """The text with what would steer the terminal, or turn letters around, written out (`\\x1b`)."""
    return "".join(each if _is_shown(each) else ascii(each)[1:-1] for each in text)


def _is_shown(character: str) -> bool:
    return (
        character.isprintable()
        or character in _HARMLESS
        or unicodedata.category(character) == "Zs"  # blanks of other widths
    )
