"""Checks plain values against a declaration and says everything that is wrong, in plain words.

pydantic stops at the first kind of error: conflicts between fields are looked for only once all fields are
right. So what is wrong is taken out and the rest is checked again, until nothing new is found.
"""

from __future__ import annotations

import difflib
import typing
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from artifacts.redact import looks_secret
from launcher.spec import grammar, job_grammar
from launcher.spec.section import Conflict, Section
from launcher.spec.words import kind, listed, shown
from launcher.spec.yaml import FieldPath

T = TypeVar("T", bound=Section)

_MAX_ROUNDS = 10
_GRAMMARS = {**job_grammar.GRAMMARS, **grammar.GRAMMARS}
#: More are not looked for: a file with more mistakes is not a job.
MAX_FINDINGS = 50


@dataclass(frozen=True)
class Finding:
    """What is wrong at a field, without its place in the file. `also` are the other fields of a conflict."""

    path: FieldPath
    why: str
    way_out: str = ""
    also: tuple[FieldPath, ...] = ()


def check(model: type[T], plain: dict[str, Any]) -> tuple[T | None, list[Finding]]:
    """The typed value, or None and everything that is wrong with it (up to MAX_FINDINGS)."""
    findings = list(islice(secrets(plain), MAX_FINDINGS))
    failed = {finding.path for finding in findings}
    rest = deepcopy(plain)
    for finding in findings:
        _take_out(model, rest, finding.path)
    for _ in range(_MAX_ROUNDS):
        try:
            value = model.model_validate(rest)
        except ValidationError as error:
            found = _findings(model, rest, error)
        else:
            return (None, findings) if findings else (value, [])
        findings += [finding for finding in found if not _is_known(finding, failed)]
        if len(findings) >= MAX_FINDINGS:
            break
        for finding in found:
            failed |= {finding.path, *finding.also}
            for path in (finding.path, *finding.also):
                _take_out(model, rest, path)
    return None, findings[:MAX_FINDINGS]


def no_choice(path: FieldPath, value: Any, choices: list[str]) -> Finding:
    """Of a field without which it is not known what the file is; `value` is none of its `choices`."""
    named = listed([f"`{choice}`" for choice in choices])
    if value is None:
        return Finding(path, "is required", f"write {named}")
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    return Finding(path, f"must be {named}", f"did you mean `{near[0]}`?" if near else "")


def secrets(plain: Any, path: FieldPath = ()) -> Iterator[Finding]:
    """Texts and keys that look like a token or password."""
    if isinstance(plain, str) and looks_secret(plain):
        yield Finding(
            path,
            "looks like a secret, and jobs and profiles are no place for one",
            "remove it (give tokens in environment variables, as HF_TOKEN) and revoke it "
            "if the file was shared",
        )
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in items:
        if isinstance(key, str) and looks_secret(key):
            yield from secrets(key, (*path, key))
        else:
            yield from secrets(value, (*path, key))


def section_at(model: type[Section], path: FieldPath) -> type[Section] | None:
    """The declaration of the section at `path`, also in a mapping of sections; None where there is none."""
    parts = iter(path)
    for part in parts:
        if isinstance(part, int):  # one of a list of sections
            continue
        field = model.model_fields.get(str(part))
        section = _section_in(field.annotation) if field else None
        if section is None or field is None:
            return None
        if typing.get_origin(field.annotation) is dict and next(parts, None) is None:
            return None
        model = section
    return model


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, typing.get_args(annotation))), None)


def _findings(model: type[Section], plain: Any, error: ValidationError) -> list[Finding]:
    """One round's findings: the branches of a union (`a number or epoch`) are joined to one."""
    conflicts: list[Finding] = []
    by_path: dict[FieldPath, list[Any]] = defaultdict(list)
    for item in error.errors(include_url=False):
        path = _path_in(plain, item["loc"], is_missing=item["type"] == "missing")
        if item["type"] == "conflict":
            conflicts += [_conflict(plain, path, conflict) for conflict in item["ctx"]["conflicts"]]
        else:
            by_path[path].append(item)
    found: list[Finding] = []
    sections = {path[:length] for path in by_path for length in range(len(path))}
    meant: set[FieldPath] = set()
    for path, items in islice(by_path.items(), MAX_FINDINGS):
        if path in sections:
            continue  # a branch of a union that the value is not meant for: the deeper error tells more
        if items[0]["type"] == "extra_forbidden":
            found.append(_unknown_key(model, path))
            meant |= {*found[-1].also}
        elif items[0]["type"] == "missing":
            found.append(_missing(model, path))
        else:
            found.append(_wrong_value(items, path))
    return [finding for finding in found if finding.path not in meant] + conflicts


def _path_in(plain: Any, location: tuple[str | int, ...], *, is_missing: bool) -> FieldPath:
    """pydantic's location without the names of union branches and short forms, which are not in the file."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        if isinstance(plain, dict) and (part in plain or (is_missing and index == len(location) - 1)):
            plain = plain.get(str(part))
        elif isinstance(plain, list) and isinstance(part, int):
            plain = plain[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _conflict(plain: Any, section: FieldPath, conflict: Conflict) -> Finding:
    paths = [(*section, *_parts(field)) for field in conflict.fields]
    present = [path for path in paths if _holds(plain, path)]
    first = present[0] if present else section
    return Finding(first, conflict.why, conflict.way_out, tuple(path for path in paths if path != first))


def _parts(field: str | FieldPath) -> FieldPath:
    """`"after.1"` -> `("after", 1)`."""
    if isinstance(field, tuple):
        return field
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))


def _unknown_key(model: type[Section], path: FieldPath) -> Finding:
    section, key = section_at(model, path[:-1]), str(path[-1])
    known = list(section.model_fields) if section else []
    near = difflib.get_close_matches(key, known, n=1) or [
        name for name in known if name == key.lower().replace("-", "_")
    ]
    if near:
        # The field that was meant counts as wrong: nothing is said about its absence.
        return Finding(path, "unknown key", f"did you mean `{near[0]}`?", also=((*path[:-1], near[0]),))
    homes = [
        name
        for name in model.model_fields
        if (home := section_at(model, (name,))) and key in home.model_fields
    ]
    if homes and len(path) == 1:
        return Finding(path, "unknown key", f"it belongs under {listed([f'`{home}`' for home in homes])}")
    return Finding(path, "unknown key", f"known here: {', '.join(known)}")


def _missing(model: type[Section], path: FieldPath) -> Finding:
    section = section_at(model, path[:-1])
    field = section.model_fields[str(path[-1])] if section else None
    example = shown(field.examples[0]) if field and field.examples else ""
    return Finding(path, "is required", f"for example `{path[-1]}: {example}`" if example else "")


def _wrong_value(items: list[Any], path: FieldPath) -> Finding:
    value = items[0]["input"]
    if any(item["type"] in ("string_too_short", "too_short") for item in items):
        return Finding(path, "must not be empty")
    expected = listed(list(dict.fromkeys(_expected(item) for item in items)))
    why = f"must be {expected}"
    if all(item["type"].endswith("_type") for item in items) and kind(value) not in expected:
        why += f", not {kind(value)}"
    return Finding(path, why, _way_out(items, value))


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _expected(item: Any) -> str:
    """What pydantic's error says that it wanted, as in "must be …"."""
    name, context = item["type"], item.get("ctx", {})
    if name in _TYPES:
        return _TYPES[name]
    if name in _BOUNDS:
        words, key = _BOUNDS[name]
        return (
            f"{words} {context[key]:,g}" if isinstance(context[key], float) else f"{words} {context[key]:,}"
        )
    if name == "literal_error":
        return listed([f"`{choice}`" for choice in _choices(item)])
    if name == "string_pattern_mismatch":
        return _GRAMMARS[context["pattern"]]
    raise AssertionError(f"no words for {name}: {item['msg']}")


def _choices(item: Any) -> list[str]:
    return [choice.strip(" '") for choice in item["ctx"]["expected"].replace(" or ", ",").split(",")]


def _way_out(items: list[Any], value: Any) -> str:
    types = {item["type"] for item in items}
    choices = [choice for item in items if item["type"] == "literal_error" for choice in _choices(item)]
    if isinstance(value, str):
        if "bool_type" in types and value.lower() in ("yes", "on", "no", "off"):
            return f"write {str(value.lower() in ('yes', 'on')).lower()}: in YAML 1.2 `{value}` is text"
        if near := difflib.get_close_matches(value.lower(), choices, n=1):
            return f"did you mean `{near[0]}`?"
        if types & {"int_type", "float_type"} and _is_number(value):
            return "remove the quotes"
    if isinstance(value, float) and "int_type" in types and value.is_integer():
        return f"write {int(value)}"
    if isinstance(value, bool | int | float) and "string_type" in types:
        return "put it in quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_known(finding: Finding, failed: set[FieldPath]) -> bool:
    """Whether one of the finding's fields, or a section above or a value below it, was wrong before."""
    return any(
        path[: len(other)] == other or other[: len(path)] == path
        for path in (finding.path, *finding.also)
        for other in failed
    )


def _holds(plain: Any, path: FieldPath) -> bool:
    for part in path:
        if isinstance(plain, dict) and part in plain:
            plain = plain[str(part)]
        elif isinstance(plain, list) and isinstance(part, int) and part < len(plain):
            plain = plain[part]
        else:
            return False
    return plain is not None


def _take_out(model: type[Section], plain: dict[str, Any], path: FieldPath) -> None:
    """Remove the field; a required one gets its declared example instead, so that checking can go on."""
    names = [part for part in path if isinstance(part, str)]
    if any(isinstance(part, int) for part in path):
        names = [
            str(part) for part in path[: next(i for i, part in enumerate(path) if isinstance(part, int))]
        ]
    for depth, name in enumerate(names):
        section = section_at(model, tuple(names[:depth]))
        inner = plain.get(name)
        if isinstance(inner, dict) and depth < len(names) - 1:
            plain = inner
            continue
        plain.pop(name, None)
        field = section.model_fields.get(name) if section else None
        if field is not None and field.is_required():
            plain[name] = deepcopy(field.examples[0]) if field.examples else None
        return
