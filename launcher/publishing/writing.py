"""Text into Markdown and YAML so that it stays text: names from outside form no markup there."""

from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import quote

#: What starts or ends something in GitHub's Markdown, HTML included; `hub` pages render both.
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_AT_START = re.compile(r"^(?=[#>+=-])|(?<=^\d)(?=[.)](?:\s|$))|(?<=^\d\d)(?=[.)](?:\s|$))")
#: What pages turn into a link or a mention by themselves: they need its last character as it is.
_LINKED = re.compile(r":(?=//)|@|(?i:www)(?=\.)")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is Markdown already."""


def escaped(value: Any) -> Any:
    """What a template prints: text with its markup escaped, on one line; Markup and numbers as they are."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    line = " ".join(printable(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    line = _AT_START.sub(lambda _: "\\", _MARKUP.sub(r"\\\1", line))
    return _LINKED.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", line)


def code(value: str) -> Markup:
    """As an inline code span, also within a table's cell."""
    line = " ".join(printable(value).split()).replace("|", "¦")
    fence = _fence(line, 1)
    return Markup(f"{fence} {line} {fence}" if "`" in line else f"`{line}`") if line else Markup("")


def link(address: str) -> Markup:
    """As the address of a link."""
    return Markup(quote(address, safe="/"))


def block(text: str, language: str = "") -> Markup:
    """As a fenced block of code."""
    body = printable(text).strip("\n")
    fence = _fence(body, 3)
    return Markup(f"{fence}{language}\n{body}\n{fence}")


def yaml(values: Any) -> str:
    """Block style, in the given order, each scalar on one line."""
    from ruamel.yaml import YAML

    writer, text = YAML(), io.StringIO()
    writer.default_flow_style, writer.width, writer.allow_unicode = False, 2**20, True
    writer.dump(_printable(values), text)
    return text.getvalue()


def printable(text: str) -> str:
    """Without control characters, and half characters that no encoding can write."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return " ".join(printable(value).split()) if isinstance(value, str) else value


def _fence(text: str, least: int) -> str:
    runs = [len(run) for run in re.findall("`+", text)]
    return "`" * max([least, *(run + 1 for run in runs)])
