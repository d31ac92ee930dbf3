"""What a plain (unquoted) YAML scalar means: the core schema of YAML 1.2.2, section 10.3.2, exactly."""

from __future__ import annotations

import re

#: Longest number. Python refuses to read or print integers of more than 4,300 digits.
MAX_NUMBER_LENGTH = 100

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+])?\.(?:inf|Inf|INF)")


def parse_scalar(text: str) -> str | int | float | bool | None:
    """What a plain (unquoted) scalar means in the core schema (YAML 1.2.2, section 10.3.2).

    Raises ValueError for a number that is too long."""
    if text in _WORDS:
        return _WORDS[text]
    is_number = _INTEGER.fullmatch(text) or _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text)
    is_float = not is_number and _FLOAT.fullmatch(text)
    if (is_number or is_float) and len(text) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of {len(text):,} characters; quote it if it is text")
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if is_float:
        return float(text)
    if special := _INFINITY.fullmatch(text):
        return float(f"{special[1] or ''}inf")
    return float("nan") if text in (".nan", ".NaN", ".NAN") else text
