"""`--set training.learning_rate=2e-4`: fields of a job given on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from artifacts.redact import looks_secret
from launcher.errors import Problem, UserError
from launcher.spec.job import SHORT_FORMS
from launcher.spec.words import kind, shown, shown_path
from launcher.spec.yaml import FieldPath, parse

_EXAMPLE = "write it as --set training.learning_rate=2e-4"
_PART = re.compile(r"[^.\[\]\s]+")


@dataclass(frozen=True)
class Override:
    path: FieldPath
    value: Any


def parse_override(text: str) -> Override:
    """`FIELD=VALUE`, the value in YAML (`none` at all, or `null`, means left out). Raises UserError."""
    field, equals, value = text.partition("=")
    field = field.strip()
    path = parse_path(field)
    if not equals or not path or not all(_PART.fullmatch(str(part)) for part in path):
        what = "--set" if looks_secret(text) else f"--set {text[:80]}"
        raise UserError(Problem(where="", what=what, why="is not FIELD=VALUE", way_out=_EXAMPLE))
    try:
        return Override(path, parse(value, "value").value)
    except UserError as error:
        where = f"--set {shown_path(path)}"
        raise UserError(
            [Problem(where=where, what=p.what, why=p.why, way_out=p.way_out) for p in error.problems]
        ) from None


def parse_path(field: str) -> FieldPath:
    """`data.train[1]` and `data.train.1` -> `("data", "train", 1)`; the empty path for an empty text."""
    parts = re.sub(r"\[(\d+)\]", r".\1", field).split(".") if field else []
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts)


def apply(plain: dict[str, Any], overrides: Sequence[Override]) -> tuple[dict[str, Any], list[Problem]]:
    """The values with the overrides in place, later ones winning; and those that have no place."""
    result, problems = deepcopy(plain), []
    for override in overrides:
        try:
            _put(result, override)
        except _NoPlaceError as error:
            where = f"--set {shown_path(override.path)}"
            problems.append(Problem(where=where, what=f"= {shown(override.value)}", why=str(error)))
    return result, problems


class _NoPlaceError(Exception):
    pass


def _put(target: Any, override: Override) -> None:
    """Sections that are missing on the way are made; `method: lora` becomes `method: {type: lora}`."""
    *sections, last = override.path
    for depth, part in enumerate(sections):
        inner = _item(target, part, override.path[: depth + 1])
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and depth == 0 and part in SHORT_FORMS:
            inner = {SHORT_FORMS[part]: inner}
        target[part] = inner
        target = inner
    _item(target, last, override.path)
    target[last] = override.value


def _item(target: Any, part: str | int, path: FieldPath) -> Any:
    """What is at `part` now, None for a key that is not there yet."""
    section = shown_path(path[:-1])
    if isinstance(target, dict):
        if isinstance(part, int):
            raise _NoPlaceError(f"{section} is a mapping, which has no item {part}")
        return target.get(part)
    if not isinstance(target, list):
        raise _NoPlaceError(f"{section} is {kind(target)}, which has nothing inside")
    if not isinstance(part, int):
        raise _NoPlaceError(f"{section} is a list; name an item by its number, as {section}[0]")
    if part >= len(target):
        raise _NoPlaceError(f"{section} has {len(target)} items, the first is {section}[0]")
    return target[part]
