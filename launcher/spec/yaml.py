"""Strict YAML 1.2: text -> plain values and the position of every key and value.

The core schema and nothing more: `no` is text, `1e-5` a number, `010` ten, `0o10` eight. What can surprise or
harm is refused with its position: duplicate keys, anchors, aliases, merge keys, tags, several documents, more
than 1 MiB, 20,000 values or 32 levels. ruamel.yaml parses; the values are built here from its events, without
recursion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from launcher.errors import Problem, UserError
from launcher.spec.files import file_fault
from launcher.spec.scalars import parse_scalar
from launcher.spec.words import kind, shown_path

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000  # scalars, lists and mappings; about a second of parsing

_MAX_REPEATED = 20  # keys given twice: enough to be told at once

FieldPath = tuple[str | int, ...]


class Position(NamedTuple):
    """Both counted from 1, in characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """`value` is made of dict (text keys), list, str, int, float, bool and None. `keys` and `values` give the
    positions by path from the root; items of lists have no key, the root's path is `()`. `spans` are the
    places of scalars and of `{…}` and `[…]` in the text, for edits: offsets of the first character and behind
    the last."""

    value: Any
    keys: dict[FieldPath, Position] = field(default_factory=dict)
    values: dict[FieldPath, Position] = field(default_factory=dict)
    spans: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)


def read_mapping(path: Path) -> Document:
    """The file's document, whose value is a mapping. Raises UserError."""
    return parse_mapping(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The file's text. Raises UserError, also for what is no readable file."""
    if fault := file_fault(path):
        raise UserError(Problem(where="", what=str(path), why=fault.why, way_out=fault.way_out))
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    return decode(data, str(path))


def parse_mapping(text: str, name: str) -> Document:
    """As `parse`, refusing anything but a mapping. Raises UserError."""
    document = parse(text, name)
    if not isinstance(document.value, dict):
        found = "only comments or blank lines" if document.value is None else kind(document.value)
        raise UserError(
            Problem(
                where=f"{name}:1:1", what="not a mapping", why=f"`key: value` lines are needed, found {found}"
            )
        )
    return document


def decode(data: bytes, name: str) -> str:
    """The text of a file's bytes (UTF-8, with or without a byte order mark). Raises UserError."""
    if len(data) > MAX_BYTES:
        raise _refusal(name, None, "too large", f"more than {MAX_BYTES:,} bytes (1 MiB)")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refusal(name, Position(1, 1), "not UTF-8", "the file is UTF-16", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (len(b"\xef\xbb\xbf") if data.startswith(b"\xef\xbb\xbf") else 0)
        before = data[:start].decode("utf-8-sig")
        raise _refusal(
            name,
            _position(before, len(before)),
            "not UTF-8",
            f"byte 0x{data[start]:02x} at byte offset {start:,} is no part of a UTF-8 character",
            "save the file as UTF-8",
        ) from None


def parse(text: str, name: str) -> Document:
    """Parse one document; `name` is the file in error messages. Raises UserError."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _refusal(name, None, "too large", f"more than {MAX_BYTES:,} bytes (1 MiB)")
    if found := _UNPRINTABLE.search(text):
        position = _position(text, found.start())
        why = f"the character U+{ord(found.group()):04X} can't be part of a YAML file"
        raise _refusal(name, position, "not valid YAML", why)
    composer = _Composer(name)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            composer.take(event)
    except MarkedYAMLError as error:
        raise _syntax_error(name, error) from None
    except YAMLError as error:
        raise _refusal(name, composer.last, "not valid YAML", str(error).splitlines()[0]) from None
    except (ValueError, OverflowError):  # from chr()
        why = "an escape (`\\U…`) after here is no Unicode character"
        raise _refusal(name, composer.last, "not valid YAML", why) from None
    if composer.problems:
        raise UserError(composer.problems)
    return Document(composer.root, composer.keys, composer.values, composer.spans)


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class _Open:
    """A collection whose end has not come yet. `key` is set between a mapping's key and its value; `start` is
    the offset of its bracket, if it has one."""

    collection: dict[str, Any] | list[Any]
    path: FieldPath
    start: int | None
    key: str | None = None


class _Composer:
    """Builds the value from parse events. Repeated keys are collected; anything else unwanted raises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Any = None
        self.keys: dict[FieldPath, Position] = {}
        self.values: dict[FieldPath, Position] = {}
        self.spans: dict[FieldPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.last = Position(1, 1)
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        self.last = Position(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, events.DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, events.AliasEvent):
            raise self._refuse("an alias", "aliases (`*name`) are not allowed here", "write the value out")
        elif isinstance(event, events.NodeEvent):
            self._refuse_properties(event)
            if isinstance(event, events.ScalarEvent):
                self._scalar(event)
            else:
                self._start_collection(event)
        elif isinstance(event, events.CollectionEndEvent):
            ended = self._open.pop()
            if ended.start is not None:
                self.spans[ended.path] = (ended.start, event.end_mark.index)

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._refuse("a second document", "only one document is allowed in a file", "remove `---`")
        if event.tags or (event.version is not None and tuple(event.version) != (1, 2)):
            raise self._refuse(
                "a directive", "only `%YAML 1.2` is allowed", "remove the line that starts with %"
            )

    def _refuse_properties(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._refuse("an anchor", "anchors (`&name`) are not allowed here", "write the value out")
        if event.ctag is not None:
            raise self._refuse(
                "a tag", "tags (`!name`) are not allowed here", "quote the text if `!` belongs to it"
            )

    def _scalar(self, event: Any) -> None:
        parent = self._open[-1] if self._open else None
        is_key = parent is not None and isinstance(parent.collection, dict) and parent.key is None
        plain = event.style is None
        if is_key and plain and event.value == "<<":
            raise self._refuse(
                "a merge key", "merge keys (`<<`) are not allowed here", "write the values out"
            )
        value = self._plain(event.value) if plain else self._text(event.value)
        if not is_key:
            self.spans[self._attach(value)] = (event.start_mark.index, event.end_mark.index)
        elif isinstance(value, str):
            self._key(value)
        else:
            raise self._refuse(
                f"key {event.value or '(empty)'}", f"a key must be text, this is {kind(value)}", "quote it"
            )

    def _plain(self, text: str) -> str | int | float | bool | None:
        try:
            return parse_scalar(text)
        except ValueError as error:
            raise self._refuse("not a usable number", str(error)) from None

    def _text(self, text: str) -> str:
        """Escapes may spell what a file can't hold: JSON's surrogate pairs are joined, the rest refused."""
        if "\0" in text:
            raise self._refuse("a NUL character", "text can't contain it")
        if not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._refuse("half a surrogate pair", "this escape is no character") from None

    def _start_collection(self, event: Any) -> None:
        collection: dict[str, Any] | list[Any] = {} if isinstance(event, events.MappingStartEvent) else []
        if len(self._open) == MAX_DEPTH:
            raise self._refuse("nested too deeply", f"more than {MAX_DEPTH} levels")
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.collection, dict) and parent.key is None:
            raise self._refuse(
                "a mapping or list as key", "a key must be text", "quote text that has braces in it"
            )
        path = self._attach(collection)
        self._open.append(_Open(collection, path, event.start_mark.index if event.flow_style else None))

    def _key(self, key: str) -> None:
        parent = self._open[-1]
        path = (*parent.path, key)
        if key in parent.collection:
            first = self.keys[path]
            self.problems.append(
                Problem(
                    where=_where(self.name, self.last),
                    what=shown_path(path),
                    why="this key is given twice",
                    way_out=f"the first is on line {first.line}; remove one",
                )
            )
            if len(self.problems) == _MAX_REPEATED:
                raise UserError(self.problems)
        else:
            self.keys[path] = self.last
        parent.key = key

    def _attach(self, value: Any) -> FieldPath:
        """Put a value (or a collection to be filled) in its place; returns its path."""
        if not self._open:
            path: FieldPath = ()
            self.root = value
        else:
            parent = self._open[-1]
            if isinstance(parent.collection, list):
                path = (*parent.path, len(parent.collection))
                parent.collection.append(value)
            else:
                assert parent.key is not None
                path = (*parent.path, parent.key)
                parent.collection[parent.key] = value
                parent.key = None
        self.values[path] = self.last
        if len(self.values) > MAX_VALUES:
            raise self._refuse("too large", f"more than {MAX_VALUES:,} values")
        return path

    def _refuse(self, what: str, why: str, way_out: str = "") -> UserError:
        return UserError([*self.problems, *_refusal(self.name, self.last, what, why, way_out).problems])


_SURROGATE = re.compile("[\ud800-\udfff]")

#: ruamel's words for the commonest mistakes, and ours.
_PLAIN_WORDS = (
    (
        r"mapping values are not allowed",
        "a `:` where no key can stand; quote the text if the colon belongs to it",
    ),
    (r"character '\\t' that cannot start", "a tab; YAML is indented with spaces"),
    (r"character '(.)' that cannot start", r"text can't start with `\1`; quote it"),
    (r"expected <block end>", "the indentation does not fit the lines above"),
    (r"could not find expected ':'", "a key without `:`"),
    (r"unexpected end of stream", "the file ends inside quotes or brackets"),
    (r"expected ',' or '([\]}])'", r"a `,` or `\1` is missing"),
    (
        r"unknown escape character '(.)'",
        r"`\\\1` is no escape; in double quotes write `\\\\` for a backslash",
    ),
)


def _syntax_error(name: str, error: MarkedYAMLError) -> UserError:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context or "can't be parsed").splitlines()[0]
    for pattern, words in _PLAIN_WORDS:
        if match := re.search(pattern, problem):
            problem = match.expand(words)
            break
    return _refusal(
        name, Position(mark.line + 1, mark.column + 1) if mark else None, "not valid YAML", problem
    )


def _refusal(name: str, position: Position | None, what: str, why: str, way_out: str = "") -> UserError:
    return UserError(Problem(where=_where(name, position), what=what, why=why, way_out=way_out))


def _where(name: str, position: Position | None) -> str:
    return f"{name}:{position.line}:{position.column}" if position else name


def _position(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)
