"""What a publication may not tell: where files lay, and what else names machines, buckets or people."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

Values = dict[str, Any]

#: Fields of configuration files that libraries fill with the path that a model was loaded from.
_PATH_FIELDS = {"_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "special_tokens_map_file"}
_BASE_FIELD = "base_model_name_or_path"
#: Sections of a job that say how the model was made. The others say where things lie.
_TOLD_SECTIONS = ("method", "training", "strategy", "after", "merge", "quantize", "gguf", "predict")
_TOLD_OF_TEMPLATE = ("name", "stop_words", "replace_eos")
#: A path that leads somewhere on one machine, an address, or an account on a host.
_PRIVATE = re.compile(r"^(?:[/\\~]|\.\.?[/\\]|[A-Za-z]:[/\\])|://|\S@\S")


def is_private(text: str) -> bool:
    """Whether a value names a place or a person, by its form."""
    return _PRIVATE.search(text) is not None


def file_name(path: str) -> str:
    """The last part of a path or address."""
    return PureWindowsPath(PurePosixPath(path.rstrip("/")).name).name


def public_config(content: bytes, *, base_name: str | None) -> bytes:
    """A model's JSON file without the paths that libraries left in it; the same bytes where there are none.

    `base_name` takes the place of an adapter's base model: its hub id, or None where it has no public name.
    """
    try:
        values = json.loads(content)
    except ValueError:
        return content
    if not isinstance(values, dict):
        return content
    public = {
        name: value
        for name, value in values.items()
        if not (name in _PATH_FIELDS and isinstance(value, str) and is_private(value))
    }
    if _BASE_FIELD in public:
        public[_BASE_FIELD] = base_name
    if public == values:
        return content
    return (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()


def public_job(job: Values) -> Values:
    """What of a resolved job the card shows: settings and the base model's public name. No data, no
    places."""
    model = job.get("model") or {}
    told: Values = {}
    if model.get("hub"):
        told["model"] = {name: model[name] for name in ("hub", "revision") if model.get(name)}
    if template := job.get("template"):
        told["template"] = {name: template[name] for name in _TOLD_OF_TEMPLATE if template.get(name)}
    told |= {name: job[name] for name in _TOLD_SECTIONS if name in job}
    cleaned: Values = {name: _cleaned(value) for name, value in told.items()}
    return {name: value for name, value in cleaned.items() if value not in (None, {}, [])}


def _cleaned(value: Any) -> Any:
    """Without what is unset and what names a place."""
    if isinstance(value, dict):
        items = {str(name): _cleaned(item) for name, item in value.items()}
        return {name: item for name, item in items.items() if item is not None and not is_private(name)}
    if isinstance(value, list):
        return [item for item in map(_cleaned, value) if item is not None]
    return None if isinstance(value, str) and is_private(value) else value
