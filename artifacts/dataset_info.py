"""`dataset_info.json` of LLaMA-Factory, which names the data sets of a folder and says how each is read.

Keys and their defaults are those of its `data/README.md` and `src/llamafactory/data/parser.py`. What an entry
does not name among its `columns` is not read, as there; what is for preference training, images or a hub is
refused.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.contract import Reading, RecordFormat

FILE_NAME = "dataset_info.json"
_KNOWN = {"file_name", "file_sha1", "formatting", "ranking", "columns", "tags", "num_samples", "split"}
#: Where an entry's data may lie but in a file of the folder.
_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_MEDIA = ("images", "videos", "audios")
_PREFERENCES = ("chosen", "rejected", "kto_tag")
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT = {"messages": "conversations"}
_FORMATS: dict[str, RecordFormat] = {
    "alpaca": "alpaca",
    "sharegpt": "conversations",
    "openai": "messages",
}
_OPTIONAL = ("query", "history", "system", "tools")
_TAGS = (
    "role_tag",
    "content_tag",
    "user_tag",
    "assistant_tag",
    "observation_tag",
    "function_tag",
    "system_tag",
)


class DatasetInfoError(ValueError):
    """The file or an entry of it can't be used: why, and the way out."""

    def __init__(self, why: str, way_out: str = "") -> None:
        self.why, self.way_out = why, way_out
        super().__init__(f"{why}; {way_out}" if way_out else why)


@dataclass(frozen=True)
class Entry:
    """One data set of the file. `unused` are keys that mean nothing here."""

    path: Path
    format: RecordFormat
    reading: Reading
    limit_records: int | None = None
    unused: tuple[str, ...] = ()


def read_entries(folder: Path) -> dict[str, Any]:
    """The file's entries by name, not looked at yet. Raises DatasetInfoError."""
    path = folder / FILE_NAME
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetInfoError(f"there is no {FILE_NAME} in it", "name the folder that holds it") from None
    except OSError as error:
        raise DatasetInfoError(f"{FILE_NAME} can't be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetInfoError(f"{FILE_NAME} is not JSON: {str(error)[:100]}") from None
    if not isinstance(entries, dict):
        raise DatasetInfoError(f"{FILE_NAME} is not an object of data sets by name")
    if ("features" in entries and "builder_name" in entries) or "config_name" in entries:
        raise DatasetInfoError(
            f"{FILE_NAME} is one of the library `datasets`, not LLaMA-Factory's",
            "name this folder in data.train itself",
        )
    return entries


def find_entry(folder: Path, entries: dict[str, Any], name: str) -> Entry:
    """The data set `name`. Raises DatasetInfoError."""
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=1)
        known = ", ".join(sorted(entries)[:12]) + (", …" if len(entries) > 12 else "")
        way_out = f"did you mean {near[0]}? (known: {known})" if near else f"known: {known or 'none'}"
        raise DatasetInfoError(f"{FILE_NAME} has no entry {name!r}", way_out)
    entry = entries[name]
    if not isinstance(entry, dict):
        raise DatasetInfoError(f"entry {name!r} is no object")
    _refuse_what_is_not_read(name, entry)
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATS:
        raise DatasetInfoError(f"entry {name!r}: formatting {formatting!r} is none of {', '.join(_FORMATS)}")
    format, columns = _columns(name, entry, _FORMATS[formatting])
    limit = entry.get("num_samples")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise DatasetInfoError(f"entry {name!r}: num_samples {limit!r} is no number of records")
    return Entry(
        path=folder / entry["file_name"],
        format=format,
        reading=Reading(columns=columns, tags=_tags(name, entry) if formatting == "sharegpt" else {}),
        limit_records=limit,
        unused=tuple(sorted(entry.keys() - _KNOWN)),
    )


def _refuse_what_is_not_read(name: str, entry: dict[str, Any]) -> None:
    where = [key for key in _ELSEWHERE if entry.get(key)]
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        if where:
            raise DatasetInfoError(
                f"entry {name!r} lies on a hub ({where[0]}: {entry[where[0]]}), unpinned",
                "write hub://datasets/ORG/NAME@COMMIT/PATH in the job, or download it and give its file_name",
            )
        raise DatasetInfoError(f"entry {name!r} has no file_name")
    columns = entry.get("columns") or {}
    if not isinstance(columns, dict) or not all(isinstance(column, str) for column in columns.values()):
        raise DatasetInfoError(f"entry {name!r}: columns is no object of column names")
    if entry.get("ranking") or any(columns.get(key) for key in _PREFERENCES):
        raise DatasetInfoError(
            f"entry {name!r} is for preference training (ranking), which is not done here",
            "choose a data set of questions and answers",
        )
    if media := [key for key in _MEDIA if columns.get(key)]:
        raise DatasetInfoError(f"entry {name!r} has {media[0]}; only text is learnt from")


def _columns(name: str, entry: dict[str, Any], format: RecordFormat) -> tuple[RecordFormat, dict[str, str]]:
    """The format and its columns by role; "" for those that the entry leaves out."""
    given: dict[str, str] | None = entry.get("columns")
    own = _ALPACA if format == "alpaca" else _SHAREGPT
    columns = dict(own if given is None else given)
    if format == "alpaca":
        if "prompt" not in columns:
            raise DatasetInfoError(f"entry {name!r}: columns names no prompt")
        if "response" not in columns:  # LLaMA-Factory's way to write text for pre-training
            return "text", {"text": columns["prompt"]}
        needed: tuple[str, ...] = ("prompt", "response")
    else:
        columns.setdefault("messages", _SHAREGPT["messages"])
        needed = ("messages",)
    return format, {role: columns.get(role, "") for role in (*needed, *_OPTIONAL)}


def _tags(name: str, entry: dict[str, Any]) -> dict[str, str]:
    tags = entry.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
        raise DatasetInfoError(f"entry {name!r}: tags is no object of names")
    if unknown := sorted(tags.keys() - set(_TAGS)):
        raise DatasetInfoError(f"entry {name!r}: unknown tag {unknown[0]!r}; known: {', '.join(_TAGS)}")
    return {tag: value for tag, value in tags.items() if value}
