"""How commands write: text for people on stdout, JSON for scripts, remarks on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

#: What needs no quotes in YAML: no number or date, nor a word that YAML 1.1 takes for a truth value or null.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z][a-z0-9_./-]*", re.I)
#: What a YAML string must not hold as it is, though a JSON string may.
_NOT_PRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def say(text: str = "") -> None:
    print(text)


def say_now(text: str) -> None:
    """For lines that come one by one: a reader at the other end of a pipe should not have to wait."""
    print(text, flush=True)


def remark(text: str) -> None:
    """Something beside the result, which scripts that read stdout should not see."""
    print(text, file=sys.stderr)


def show_json(value: Any) -> None:
    """A value (dataclasses become objects) as indented JSON, in ASCII: any terminal can show it."""
    print(json.dumps(value, indent=2, default=_plain))


def to_yaml(objects: Sequence[Any]) -> str:
    """JSON values as a stream of YAML documents, keys in the order they are in. A text is quoted as in
    JSON unless no parser can take it for a number or a truth value."""
    return "\n".join(f"---\n{_yaml(value)}" for value in objects)


def _yaml(value: Any, indent: str = "") -> str:
    if isinstance(value, dict) and value:
        return "\n".join(f"{indent}{_scalar(key)}:{_yaml_below(item, indent)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "\n".join(f"{indent}- {_yaml(item, indent + '  ').lstrip(' ')}" for item in value)
    return indent + _scalar(value)


def _yaml_below(value: Any, indent: str) -> str:
    below = isinstance(value, (dict, list)) and value
    return "\n" + _yaml(value, indent + "  ") if below else f" {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def columns(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    """Left-aligned columns, as wide as they need."""
    table = [list(headings), *[list(row) for row in rows]]
    widths = [max(len(row[index]) for row in table) for index in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def when(time_s: float | None) -> str:
    """A Unix time in local time; empty for None."""
    return "" if time_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))


def is_terminal() -> bool:
    return sys.stdout.isatty()


def has_colours() -> bool:
    """As https://no-color.org asks."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
