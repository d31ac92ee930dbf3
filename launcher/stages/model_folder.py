"""A model folder on this machine: what must be in it, its size, and the digests of its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifacts.manifest import MARKER, FileEntry
from launcher.digests import Digests
from launcher.spec.files import Fault

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: One of these makes a tokenizer.
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tiktoken.model",
)
#: Files beside the weights that belong to a model: configs, tokenizer, templates and remote code.
_SUFFIXES = {".json", ".model", ".txt", ".jinja", ".tiktoken", ".py", ".cu", ".cpp"}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
#: Hub caches name large files' blobs by their SHA-256 (64 hex digits), small ones by git's SHA-1.
_LFS_BLOB = re.compile(r"[0-9a-f]{64}")


def faults(folder: Path, *, weights: bool = True) -> list[Fault]:
    """What keeps a folder from being a base model; empty when nothing. Opens only JSON files."""
    found = []
    config = read_json(folder / "config.json")
    if config is None:
        found.append(Fault("has no config.json that can be read", "name the folder of a transformers model"))
    elif (folder / "adapter_config.json").is_file() and "model_type" not in config:
        found.append(Fault("is an adapter, not a model", "name its base model, or merge it first"))
    if not any((folder / name).is_file() for name in TOKENIZERS):
        found.append(
            Fault(
                f"has no tokenizer ({', '.join(TOKENIZERS[:2])}, …)",
                "save the model's tokenizer beside it: tokenizer.save_pretrained(FOLDER)",
            )
        )
    return found + (weight_faults(folder) if weights else [])


def weight_faults(folder: Path) -> list[Fault]:
    """What is wrong with the folder's weights; they are not read."""
    shards = weight_files(folder)
    if not shards:
        pickled = next((path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLED), None)
        if pickled is None:
            return [Fault("has no safetensors weights", f"it needs {SINGLE} or {INDEX} and its shards")]
        return [
            Fault(
                f"has pickled weights only ({pickled}), which can run code when they are loaded",
                "convert them where you trust them: AutoModelForCausalLM.from_pretrained(FOLDER)"
                ".save_pretrained(FOLDER), which writes safetensors",
            )
        ]
    missing = [name for name in shards if not (folder / name).is_file()]
    if not missing:
        return []
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    text = f"lacks {', '.join(missing[:3])}{more}, which {INDEX} names"
    return [Fault(text, "download or copy the model again")]


def weight_files(folder: Path) -> list[str]:
    """The safetensors files that hold the weights: those the index names, else the single one."""
    index = read_json(folder / INDEX)
    if index is None:
        return [SINGLE] if (folder / SINGLE).is_file() else []
    mapping = index.get("weight_map")
    names = set(mapping.values()) if isinstance(mapping, dict) else set()
    return sorted(name for name in names if isinstance(name, str) and Path(name).name == name)


def model_files(folder: Path, *, weights: bool = True) -> list[str]:
    """The files of the folder that are part of the model, by path relative to it."""
    names = [path.name for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]
    templates = folder / "additional_chat_templates"
    names += [f"{templates.name}/{path.name}" for path in templates.glob("*.jinja")]
    left_out = {MARKER} if weights else {MARKER, INDEX}  # the folder may be an artifact itself
    kept = [name for name in names if not name.startswith(".") and name not in left_out]
    return sorted([*kept, *(weight_files(folder) if weights else [])])


def entries(folder: Path, digests: Digests, *, weights: bool = True) -> list[FileEntry]:
    """Sizes and digests of the model's files. Raises OSError."""
    return entries_of(folder, model_files(folder, weights=weights), digests)


def entries_of(folder: Path, names: Iterable[str], digests: Digests) -> list[FileEntry]:
    """Sizes and digests of these files. Raises OSError."""
    return [FileEntry(name, *_digest(folder / name, digests)) for name in names]


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _digest(path: Path, digests: Digests) -> tuple[int, str]:
    """(bytes, SHA-256). A blob of the hub's cache is named by its digest, which readers verify."""
    target = path.resolve() if path.is_symlink() else path
    if target.parent.name == "blobs" and _LFS_BLOB.fullmatch(target.name):
        return target.stat().st_size, target.name
    return digests.sha256(target)
