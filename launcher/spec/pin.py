"""`slipway pin JOB`: write the revision or digest of the job's remote model and data into the job file.

The text is edited in place, so that comments and layout stay as they are, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import remote_data
from launcher.errors import Problem, UserError
from launcher.spec.data import SPLITS
from launcher.spec.job_grammar import HUB_ID_PATTERN, REVISION_PATTERN
from launcher.spec.revisions import NotFoundError, artifact_digest, huggingface_commit, modelscope_commit
from launcher.spec.words import shown
from launcher.spec.yaml import Document, FieldPath, Position, parse_mapping, read_text


@dataclass(frozen=True)
class Change:
    """A field of the job file that was written; `before` is None where there was none."""

    field: str
    before: str | None
    after: str

    def __str__(self) -> str:
        return f"{self.field}: {self.before or '(left out)'} -> {self.after}"


def pin_job(path: str | Path) -> list[Change]:
    """Pin what is not pinned. Empty, and nothing written, where there is nothing to do.

    A branch or tag in `model.revision` is resolved to its commit; a full commit is left alone. The digest of
    an artifact in a store is always looked up again. Raises UserError, ClusterError (the network)."""
    path = Path(path)
    if not isinstance(parse_mapping(read_text(path), str(path)).value.get("model"), dict):
        raise UserError(Problem(where=f"{path}:1:1", what="model", why="there is no model to pin"))
    return [*_pin_model(path, ("model",)), *_pin_model(path, ("merge", "original")), *_pin_data(path)]


def _pin_model(path: Path, section: tuple[str, ...]) -> list[Change]:
    """The model that the section names, if there is such a section."""
    text = read_text(path)
    document = parse_mapping(text, str(path))
    model = _at(document.value, section)
    if not isinstance(model, dict):
        return []
    named = ".".join(section)
    source = next((name for name in ("hub", "store") if model.get(name) is not None), None)
    if source is None:
        return []
    field = "revision" if source == "hub" else "sha256"
    before = model.get(field)
    try:
        after = _commit(model) if source == "hub" else artifact_digest(_address(model["store"], path))
    except NotFoundError as error:
        place = document.keys[*section, source]
        what = f"{named}.{source}: {shown(model[source])}"
        where = f"{path}:{place.line}:{place.column}"
        raise UserError(Problem(where=where, what=what, why=error.why, way_out=error.way_out)) from None
    if after == before:
        return []
    written = f'"{after}"' if after.isdigit() else after
    _replace(path, _edited(text, document, path, (*section, source), field, after, written))
    return [Change(f"{named}.{field}", None if before is None else str(before), after)]


def _at(value: Any, section: tuple[str, ...]) -> Any:
    """What a mapping holds there; None where there is no such section."""
    for name in section:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _pin_data(path: Path) -> list[Change]:
    """The digests of remote files that have none; a pin that is there stays, one of no file goes."""
    text = read_text(path)
    document = parse_mapping(text, str(path))
    data = document.value.get("data")
    if not isinstance(data, dict):
        return []
    given = data.get("pins")
    before: dict[str, str] = given if isinstance(given, dict) else {}
    pins: dict[str, str] = {}
    for split in SPLITS:
        files = data.get(split)
        for entry in files if isinstance(files, list) else [files]:
            name = entry.get("path") if isinstance(entry, dict) else entry
            for file in _addresses(name, before):
                pins[file] = before.get(file) or remote_data.digest(file)
    if pins == before:
        return []
    anchor = next((split for split in SPLITS if split in data), "pins")
    written = json.dumps(pins)  # a flow mapping of YAML, whatever the addresses hold
    _replace(path, _edited(text, document, path, ("data", anchor), "pins", pins, written))
    return [
        Change(f"data.pins[{file}]", before.get(file), pins.get(file, "(removed)"))
        for file in {**before, **pins}
        if before.get(file) != pins.get(file)
    ]


def _addresses(name: Any, pinned: dict[str, str]) -> list[str]:
    """The remote files that a data set is made of; of a pattern those that are pinned already, if any."""
    if not isinstance(name, str) or not remote_data.is_known(name):
        return []
    if not remote_data.has_pattern(name):
        return [name]
    return remote_data.matching(name, pinned) or remote_data.listing(name)


def _commit(model: dict[str, Any]) -> str:
    repository, revision, provider = (
        model["hub"],
        model.get("revision"),
        model.get("provider") or "huggingface",
    )
    if not isinstance(repository, str) or not re.fullmatch(HUB_ID_PATTERN, repository):
        raise NotFoundError("is no repository id", "write it as `Qwen/Qwen3-8B`")
    if revision is not None and not isinstance(revision, str):
        raise NotFoundError(f"its revision {shown(revision)} is not text", "put it in quotes")
    if revision is not None and re.fullmatch(REVISION_PATTERN, revision):
        return revision
    if provider == "huggingface":
        return huggingface_commit(repository, revision)
    if provider == "modelscope":
        return modelscope_commit(repository, revision)
    raise NotFoundError(f"its provider {shown(provider)} is not known", "write huggingface or modelscope")


def _address(store: Any, job: Path) -> str:
    """The artifact's address; a relative path starts at the job file."""
    if not isinstance(store, str):
        raise NotFoundError("is no address", "write it as file:///folder/models/KEY")
    return store if "://" in store else str(Path(os.path.abspath(job)).parent / Path(store).expanduser())  # noqa: PTH100


def _edited(
    text: str,
    document: Document,
    path: Path,
    anchor: tuple[str, ...],
    field: str,
    value: str | dict[str, str],
    written: str,
) -> str:
    """The text with `field` set to `value`, as `written`, in the section of `anchor`: in its place, or behind
    the anchor."""
    section = anchor[:-1]
    if (*section, field) in document.keys:
        start, end = _span(text, document, (*section, field))
        if start == end:  # `revision:` without a value, perhaps with a comment
            start = end = text.index(":", _offset(text, document.keys[*section, field])) + 1
            written = f" {written}"
        result = f"{text[:start]}{written}{text[end:]}"
    else:
        _, end = _span(text, document, anchor)
        if text[_offset(text, document.values[section])] == "{":
            result = f"{text[:end]}, {field}: {written}{text[end:]}"
        else:
            newline = "\r\n" if "\r\n" in text else "\n"
            indent = " " * (document.keys[anchor].column - 1)
            line_end = end + len(re.match(r"[^\r\n]*", text[end:])[0])  # type: ignore[index]
            result = f"{text[:line_end]}{newline}{indent}{field}: {written}{text[line_end:]}"
    expected = deepcopy(document.value)
    _at(expected, section)[field] = value
    with contextlib.suppress(UserError):
        if parse_mapping(result, str(path)).value == expected:
            return result
    place = document.keys[anchor]
    raise UserError(
        Problem(
            where=f"{path}:{place.line}:{place.column}",
            what=".".join((*section, field)),
            why="can't be written into this layout",
            way_out=f"write `{field}: {written.strip()}` under {'.'.join(section)}",
        )
    )


def _span(text: str, document: Document, path: FieldPath) -> tuple[int, int]:
    """Offsets of a value's first character and behind its last; of a block, behind its last scalar."""
    if path in document.spans:
        return document.spans[path]
    inside = [end for other, (_, end) in document.spans.items() if other[: len(path)] == path]
    return _offset(text, document.values[path]), max(inside)


def _offset(text: str, position: Position) -> int:
    line_starts = [0, *(end.end() for end in re.finditer(r"\r\n|\r|\n", text))]
    return line_starts[position.line - 1] + position.column - 1


def _replace(path: Path, text: str) -> None:
    """Write the whole file or nothing; permissions and byte order mark stay, a symlink is followed."""
    target = path.resolve()
    old = target.read_bytes()
    mark = b"\xef\xbb\xbf" if old.startswith(b"\xef\xbb\xbf") else b""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(mark + text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(stat.S_IMODE(target.stat().st_mode))
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
