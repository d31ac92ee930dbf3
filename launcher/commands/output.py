"""How commands write: text for people on stdout, JSON for scripts, remarks on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any


def say(text: str = "") -> None:
    print(text)


def say_now(text: str) -> None:
    """For lines that come one by one: a reader at the other end of a pipe should not have to wait."""
    print(text, flush=True)


def remark(text: str) -> None:
    """Something beside the result, which scripts that read stdout should not see."""
    print(text, file=sys.stderr)


def show_json(value: Any) -> None:
    """A value (dataclasses become objects) as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


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


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
