"""Compiled wheels in the store: an artifact for each combination, its marker written last."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from artifacts.manifest import ArtifactWriter, hash_file, read_marker
from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.images import flash_attention, llama_cpp

Wheel = flash_attention.Wheel | llama_cpp.Wheel


def fetch_wheels(store: Store, wheel: Wheel, folder: Path) -> bool:
    """Copy the wheels from the store into `folder`; False, and nothing copied, where the store has none, or
    not what its marker says (they are then made again)."""
    manifest = read_marker(store, wheel.prefix)
    if manifest is None:
        return False
    targets = [folder / entry.path for entry in manifest.files]
    for entry, target in zip(manifest.files, targets, strict=True):
        with store.open_read(f"{wheel.prefix}/{entry.path}") as source, target.open("wb") as copy:
            while block := source.read(1 << 20):
                copy.write(block)
        if hash_file(target) != (entry.size_bytes, entry.sha256):
            for copied in targets:
                copied.unlink(missing_ok=True)
            return False
    return True


def keep_wheels(store: Store, wheel: Wheel, folder: Path) -> None:
    """Put the wheels in `folder` into the store. Raises ClusterError where there are not as many as the
    combination has."""
    found = sorted(folder.glob("*.whl"))
    if len(found) != wheel.files:
        why = f"the build made {len(found)} wheels, {wheel.files} expected"
        raise ClusterError(wheel.name, why, "see the log of the build")
    writer = ArtifactWriter(store, wheel.prefix)
    for path in found:
        writer.add_file(path.name, path)
    writer.commit(wheel=dataclasses.asdict(wheel))
