"""Dataclasses as canonical JSON, and back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def canonical_json(value: Any) -> bytes:
    """The one rendering that digests are made from: sorted keys, no spaces, UTF-8, no NaN."""
    plain = (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def decode(cls: type[T], data: Any) -> T:
    """Build the dataclass `cls` from plain JSON values. Raises TypeError or ValueError naming the field."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__}: {data!r:.60} is not an object")
    types_ = _field_types(cls)  # type: ignore[arg-type]
    unknown = sorted(data.keys() - types_.keys())
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown field {unknown[0]!r}")
    return cls(
        **{name: _decode_value(types_[name], value, f"{cls.__name__}.{name}") for name, value in data.items()}
    )


@functools.cache  # a manifest has one entry per file, and resolving annotations costs more than all else
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r:.60} is none of {', '.join(map(repr, args))}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    wanted: Any = (int, float) if hint is float else (origin or hint)
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"{where}: {value!r:.60} is not of type {getattr(hint, '__name__', hint)}")
    if origin is list:
        return [_decode_value(args[0], item, where) for item in value]
    if origin is dict:
        return {key: _decode_value(args[1], item, where) for key, item in value.items()}
    return value


def _decode_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first of the types that fits."""
    if value is None and type(None) in choices:
        return None
    concrete = [choice for choice in choices if choice is not type(None)]
    for choice in concrete[:-1]:
        try:
            return _decode_value(choice, value, where)
        except (TypeError, ValueError):
            continue
    return _decode_value(concrete[-1], value, where)
