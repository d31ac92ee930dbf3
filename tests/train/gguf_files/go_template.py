"""As much of Go's text/template, and of what Ollama hands to it, as a chat template needs. Written from the
documentation of Go's package and ollama's template/template.go; knows nothing of how templates are made here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_PARTS = re.compile(r"\{\{(?P<left>- )?\s*(?P<code>(?:\"(?:\\.|[^\"\\])*\"|[^\"}])*?)\s*(?P<right> -)?\}\}")
_WORDS = re.compile(r"\"(?:\\.|[^\"\\])*\"|:=|[=(),]|[^\s(),=:]+")


def ollama(template: str, messages: Sequence[dict[str, str]]) -> str:
    """What Ollama's runner is given for a chat: neighbours of one role joined, all system texts beside."""
    collated: list[dict[str, Any]] = []
    for message in messages:
        if collated and collated[-1]["Role"] == message["role"]:
            collated[-1]["Content"] += "\n\n" + message["content"]
        else:
            collated.append({"Role": message["role"], "Content": message["content"]})
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return render(template, {"System": system, "Messages": collated})


def render(template: str, data: Any) -> str:
    return "".join(_run(_parse(_lex(template))[0], data, {"$": data}))


def _lex(template: str) -> Iterator[tuple[str, str]]:
    at, trim = 0, False
    for part in _PARTS.finditer(template):
        text = template[at : part.start()]
        text = text.lstrip() if trim else text
        yield "text", text.rstrip() if part["left"] else text
        yield "code", part["code"]
        at, trim = part.end(), bool(part["right"])
    yield "text", template[at:].lstrip() if trim else template[at:]


def _parse(parts: Iterator[tuple[str, str]]) -> tuple[list[Any], str]:
    """Nodes up to `end` or `else`, and what ended them."""
    nodes: list[Any] = []
    for kind, value in parts:
        word = value.partition(" ")[0]
        if kind == "text":
            nodes.append(("text", value))
        elif word in ("end", "else"):
            return nodes, value
        elif word in ("if", "range"):
            body, ending = _parse(parts)
            otherwise: list[Any] = []
            if ending.startswith("else if "):
                chained = _parse_chain(ending.removeprefix("else "), parts)
                otherwise = [chained]
            elif ending == "else":
                otherwise, _ = _parse(parts)
            nodes.append((word, value.partition(" ")[2], body, otherwise))
        else:
            nodes.append(("action", value))
    return nodes, ""


def _parse_chain(value: str, parts: Iterator[tuple[str, str]]) -> Any:
    """`else if`: a nested if that ends with the outer one."""
    body, ending = _parse(parts)
    otherwise: list[Any] = []
    if ending.startswith("else if "):
        otherwise = [_parse_chain(ending.removeprefix("else "), parts)]
    elif ending == "else":
        otherwise, _ = _parse(parts)
    return "if", value.partition(" ")[2], body, otherwise


def _run(nodes: list[Any], dot: Any, variables: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if node[0] == "text":
            yield node[1]
        elif node[0] == "action":
            value = _action(node[1], dot, variables)
            if value is not None:
                yield str(value)
        elif node[0] == "if":
            yield from _run(node[2] if _evaluate(node[1], dot, variables) else node[3], dot, variables)
        else:
            names, _, items = node[1].partition(":=")
            index, element = (name.strip() for name in names.split(","))
            for number, item in enumerate(_evaluate(items, dot, variables)):
                variables |= {index: number, element: item}
                yield from _run(node[2], item, variables)


def _action(code: str, dot: Any, variables: dict[str, Any]) -> Any:
    words = _WORDS.findall(code)
    if len(words) > 2 and words[1] in (":=", "="):
        assert words[1] == ":=" or words[0] in variables, f"undefined: {words[0]}"
        variables[words[0]] = _evaluate(code.partition("=")[2], dot, variables)
        return None
    return _evaluate(code, dot, variables)


def _evaluate(code: str, dot: Any, variables: dict[str, Any]) -> Any:
    words = _WORDS.findall(code)
    value, rest = _call(words, dot, variables)
    assert not rest, f"left over in {code!r}: {rest}"
    return value


def _call(words: list[str], dot: Any, variables: dict[str, Any]) -> tuple[Any, list[str]]:
    functions = {
        "eq": lambda a, b: a == b,
        "len": len,
        "slice": lambda items, start: items[start:],
        "not": lambda a: not a,
    }
    if words[0] in functions:
        function, rest, arguments = functions[words[0]], words[1:], []
        while rest and rest[0] != ")":
            value, rest = _term(rest, dot, variables)
            arguments.append(value)
        return function(*arguments), rest
    return _term(words, dot, variables)


def _term(words: list[str], dot: Any, variables: dict[str, Any]) -> tuple[Any, list[str]]:
    word, rest = words[0], words[1:]
    if word == "(":
        value, rest = _call(rest, dot, variables)
        assert rest[0] == ")"
        return value, rest[1:]
    if word.startswith('"'):
        return json.loads(word), rest
    if word in ("true", "false"):
        return word == "true", rest
    if word.isdigit():
        return int(word), rest
    name, *fields = word.split(".")
    value = variables[name] if name else dot
    for field in fields:
        value = value[field]
    return value, rest
