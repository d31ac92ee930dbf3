"""Values and field names as error messages show them. What looks like a secret is never shown."""

from __future__ import annotations

import json
import re
from typing import Any

_MAX_SHOWN = 60  # characters

_SECRET = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        hf_[A-Za-z0-9]{16,}                                         # Hugging Face
      | (?:AKIA|ASIA)[0-9A-Z]{16}                                   # AWS access key id
      | sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Za-z])[A-Za-z0-9_-]{20,}      # OpenAI, Anthropic and others
      | gh[pousr]_[A-Za-z0-9]{30,} | github_pat_\w{30,}             # GitHub
      | glpat-[\w-]{20,}                                            # GitLab
      | xox[abprs]-[A-Za-z0-9-]{10,}                                # Slack
      | AIza[\w-]{35}                                               # Google
      | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+                        # JSON web token
      | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    ) | ://[^/\s:@]*:[^/\s@]+@                                      # user:password@ in an address
    """,
    re.VERBOSE,
)

HIDDEN = "(hidden: it looks like a secret)"


def looks_secret(text: str) -> bool:
    """Whether the text holds something of the form of a token, a private key or a password in an address."""
    return _SECRET.search(text) is not None


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


def listed(words: list[str]) -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
