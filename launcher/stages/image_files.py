"""The files of this checkout that go into the images, and their digest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

#: Folders that go in whole, and single files. Tests, docs and examples stay out: they rebuild nothing.
FOLDERS = ("artifacts", "images", "launcher", "train")
LOCKS = (
    "requirements/flash-attention.lock",
    "requirements/gguf-build.lock",
    "requirements/gguf.lock",
    "requirements/launcher.lock",
    "requirements/setup.lock",
    "requirements/train.lock",
)


def image_files(root: Path) -> list[str]:
    """Paths relative to `root`, sorted: what git knows or would take (never what it ignores, which may be
    private). Without git, as in a release, every file but bytecode and hidden ones."""
    listed = _listed_by_git(root)
    names = set(_walked(root) if listed is None else listed)
    return sorted(name for name in {*names, *LOCKS} if (root / name).is_file())


def digest_files(root: Path, digest: Callable[[Path], str]) -> dict[str, str]:
    """`digest` of each file that goes in, by its path."""
    return {name: digest(root / name) for name in image_files(root)}


def _listed_by_git(root: Path) -> list[str] | None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS]
    try:
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # A checkout of something else around the files lists none of them.
    return [name for name in result.stdout.split("\0") if name] or None if not result.returncode else None


def _walked(root: Path) -> Iterator[str]:
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(p == "__pycache__" or p.startswith(".") for p in parts):
                yield "/".join(parts)
