"""The files that lie beside a model's weights, and which of them a merged model has."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from artifacts.manifest import MARKER
from train.merging.adapter import has_adapter

#: What a model folder holds beside its weights: configs, tokenizer, chat template, remote code.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.tiktoken", "**/*.jinja", "**/*.py", "**/*.cu", "**/*.cpp")
_VOCABULARY = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
_TEMPLATES = ("chat_template*", "additional_chat_templates/*")
#: What an adapter brings along: how it is asked. The rest of its folder tells how it was trained.
_OF_ADAPTERS = (*_VOCABULARY, *_TEMPLATES, "*.tiktoken", "generation_config.json")


def companions(base: Path, trained: Path | None = None) -> dict[str, Path]:
    """What the merged model takes over unchanged, by path in its folder: the base's files, and over them
    those of what was trained. Another tokenizer or chat template takes the place of all files of the base's.
    """
    files = {path: base / path for path in companion_files(base)}
    if trained is None:
        return files
    brought = companion_files(trained)
    if has_adapter(trained):
        brought = list(_matching(brought, _OF_ADAPTERS))
    replaced: set[str] = set()
    if "tokenizer.json" in brought and _differ(base / "tokenizer.json", trained / "tokenizer.json"):
        replaced |= set(_matching(files, _VOCABULARY))
    if [*_matching(brought, _TEMPLATES)] or _has_template(trained / "tokenizer_config.json"):
        replaced |= set(_matching(files, _TEMPLATES))
    kept = {path: file for path, file in files.items() if path not in replaced}
    return kept | {path: trained / path for path in brought}


def companion_files(folder: Path) -> list[str]:
    """Paths relative to `folder` of the files that lie beside a model's weights."""
    found = {path.relative_to(folder) for pattern in _COMPANIONS for path in folder.glob(pattern)}
    return sorted(
        path.as_posix()
        for path in found
        if not path.name.endswith(".index.json")
        and path.name != MARKER
        and not any(part.startswith(".") for part in path.parts)
    )


def _matching(paths: Iterable[str], patterns: Collection[str]) -> Iterable[str]:
    return (path for path in paths if any(fnmatch.fnmatch(path, pattern) for pattern in patterns))


def _differ(one: Path, other: Path) -> bool:
    return not one.is_file() or one.read_bytes() != other.read_bytes()


def _has_template(tokenizer_config: Path) -> bool:
    """Whether the chat template is part of it, as older models have it."""
    return tokenizer_config.is_file() and bool(json.loads(tokenizer_config.read_bytes()).get("chat_template"))
