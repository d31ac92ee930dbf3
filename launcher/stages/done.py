"""Whether a stage has nothing left to do."""

from __future__ import annotations

from pathlib import Path

from artifacts.contract import StageKind, StagePlan
from artifacts.manifest import Manifest, read_marker
from artifacts.store import Store, file_uri_path


def is_done(stage: StagePlan, store: Store) -> bool:
    """Its artifact is complete. A base model that is used in place must still be where its marker points, at
    the place that this plan names; a folder of this machine is none where others read the store."""
    manifest = read_marker(store, stage.output)
    if manifest is None or manifest.location is None:
        return manifest is not None
    if is_remote(store):
        return file_uri_path(manifest.location) is None
    if stage.kind == StageKind.MODEL and stage.params.source == "folder":
        return manifest.location == Path(stage.params.location).as_uri() and _lies_there(manifest)
    return _lies_there(manifest)


def is_remote(store: Store) -> bool:
    """Whether other machines work with it, so that no path of this one is of any use to them."""
    return store.local_path("") is None


def _lies_there(manifest: Manifest) -> bool:
    """Every file is there in its size. What it holds was checked when the marker was written."""
    folder = file_uri_path(manifest.location or "")
    if folder is None:
        return True
    try:
        return all((folder / file.path).stat().st_size == file.size_bytes for file in manifest.files)
    except OSError:
        return False
