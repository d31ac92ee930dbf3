"""Compiled wheels in the store: an artifact each, its marker written last."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from artifacts.manifest import ArtifactWriter, hash_file, read_marker
from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.images.flash_attention import Wheel


def fetch_wheel(store: Store, wheel: Wheel, folder: Path) -> Path | None:
    """Copy the wheel from the store into `folder`; None where the store has none, or not what its marker
    says (it is then made again)."""
    manifest = read_marker(store, wheel.prefix)
    if manifest is None:
        return None
    (entry,) = manifest.files
    target = folder / entry.path
    with store.open_read(f"{wheel.prefix}/{entry.path}") as source, target.open("wb") as copy:
        while block := source.read(1 << 20):
            copy.write(block)
    if hash_file(target) == (entry.size_bytes, entry.sha256):
        return target
    target.unlink()
    return None


def keep_wheel(store: Store, wheel: Wheel, folder: Path) -> None:
    """Put the one wheel in `folder` into the store. Raises ClusterError where there is not one."""
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        why = f"the build made {len(found)} wheels, one was expected"
        raise ClusterError("flash-attention", why, "see the log of the build")
    writer = ArtifactWriter(store, wheel.prefix)
    writer.add_file(found[0].name, found[0])
    writer.commit(wheel=dataclasses.asdict(wheel))
