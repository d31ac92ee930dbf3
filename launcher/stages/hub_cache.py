"""The Hugging Face hub's cache on this machine, read only.

It lies in `models--<org>--<name>/`: `refs/`, `snapshots/<commit>/` and the `blobs/` that those link to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where huggingface_hub keeps models: its environment variables in its own order."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser() / "hub"
    home = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "huggingface" / "hub"


def snapshot(repository: str, revision: str, cache: Path) -> Path | None:
    """The folder of a repository at a full revision, if there is one (it may lack files)."""
    folder = _repository_folder(repository, cache) / "snapshots" / revision
    return folder if folder.is_dir() else None


def commit(repository: str, reference: str, cache: Path) -> str | None:
    """The commit that a branch or tag had when it was fetched last; None where it never was."""
    try:
        return (_repository_folder(repository, cache) / "refs" / reference).read_text().strip() or None
    except (OSError, ValueError):
        return None


def _repository_folder(repository: str, cache: Path) -> Path:
    return cache / f"models--{repository.replace('/', '--')}"
