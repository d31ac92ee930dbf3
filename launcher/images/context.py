"""The folder that a builder gets: the files that go in, and nothing else of the checkout."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launcher.images.builders import EPOCH_S
from launcher.stages.image_files import image_files

#: Where the Dockerfile looks for wheels that are not in a package index.
WHEELS = "images/wheels"


@contextlib.contextmanager
def build_context(root: Path) -> Iterator[Path]:
    """A temporary copy of what goes into the images, with modes as git keeps them; `settle` it before use."""
    with tempfile.TemporaryDirectory(prefix="slipway-image-") as name:
        folder = Path(name)
        for path in image_files(root):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, target)
            target.chmod(0o755 if os.access(root / path, os.X_OK) else 0o644)
        (folder / WHEELS).mkdir(parents=True, exist_ok=True)
        yield folder


def settle(folder: Path) -> None:
    """Make it the same to the bit whoever made it: one time for every file, the one that layers have."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (EPOCH_S, EPOCH_S))
