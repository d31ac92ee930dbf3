"""Values and field names as error messages show them. What looks like a secret is never shown."""

from __future__ import annotations

import json
import re
from typing import Any

from artifacts.redact import looks_secret

_MAX_SHOWN = 60  # characters

HIDDEN = "(hidden: it looks like a secret)"


def shown(value: Any) -> str:
    """A value in one short line: text in double quotes, `true`, `null`, lists and mappings as JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if looks_secret(text):
        return HIDDEN
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def shown_path(path: tuple[str | int, ...]) -> str:
    """`("data", "train", 1)` -> `data.train[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if looks_secret(text):
        return HIDDEN
    text = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", "?", text)
    return text if len(text) <= 2 * _MAX_SHOWN else f"{text[: 2 * _MAX_SHOWN - 1]}…"


def kind(value: Any) -> str:
    """The type of a YAML value for people: `text`, `a number`, `true or false`, …"""
    names = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        dict: "a mapping",
        list: "a list",
        type(None): "nothing",
    }
    return names[type(value)]


def listed(words: list[str], last: str = "or") -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
