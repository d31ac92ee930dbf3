"""Models and adapters that are used where they lie: in a local folder, the hub's cache, another store.

The artifact is then a marker that lists their files. Only what is not on this machine, or has to be made,
runs as a stage process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from artifacts.contract import ModelParams, StageKind, StagePlan
from artifacts.manifest import FileEntry, Manifest, manifest_at, read_marker, write_marker
from artifacts.store import Store, file_uri_path
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.spec.files import Fault
from launcher.stages import adapter_folder, hub_cache, model_folder
from launcher.stages.done import is_remote


class Contents(Protocol):
    """What makes a folder whole, and which of its files count: a module."""

    def faults(self, folder: Path, *, weights: bool = True) -> list[Fault]: ...

    def entries(self, folder: Path, digests: Digests, *, weights: bool = True) -> list[FileEntry]: ...


MODEL_FILES: Contents = model_folder
ADAPTER_FILES: Contents = adapter_folder


def contents(kind: StageKind) -> Contents:
    return ADAPTER_FILES if kind == StageKind.ADAPTER else MODEL_FILES


def is_taken(stage: StagePlan) -> bool:
    """Whether the stage takes a model or adapter as it is; a twin is made."""
    return isinstance(stage.params, ModelParams) and stage.params.source != "twin"


def commit(
    stage: StagePlan, store: Store, digests: Digests, environment: Mapping[str, str] = os.environ
) -> Manifest | None:
    """Write the marker of what is used where it lies; None where a stage process has to fetch or make it, or
    where it lies on this machine and the store is read by others (`launcher.stages.model_upload`).

    Cheap to repeat: an unchanged folder is not read again, and a marker that points to where the model no
    longer lies is replaced. Raises UserError where a folder is not what the plan saw.
    """
    params: ModelParams = stage.params
    if is_remote(store) and on_this_machine(params):
        return None
    if params.source == "store":
        manifest = manifest_at(params.location or "")
        if manifest is None or manifest.content_digest != params.sha256:
            raise changed(params, "the artifact is missing or not the pinned one", "slipway pin JOB")
        if is_remote(store) and file_uri_path(manifest.location or "") is not None:
            raise changed(params, f"its files lie on another machine ({manifest.location})", "choose another")
    else:
        folder = None if is_remote(store) else folder_of(params, environment)
        if folder is None:
            return None
        if faults := contents(stage.kind).faults(folder):
            if params.source == "hub":  # a download that was not finished
                return None
            raise changed(params, f"the folder {faults[0].why}", faults[0].way_out)
        files = contents(stage.kind).entries(folder, digests)
        if params.source == "folder" and Manifest(files=files).content_digest != params.sha256:
            raise changed(params, "the folder changed since the plan was made", "submit again")
        manifest = Manifest(files=files, location=folder.as_uri())
    if read_marker(store, stage.output) != manifest:
        write_marker(store, stage.output, manifest)
    return manifest


def on_this_machine(params: ModelParams) -> bool:
    """Whether the model (a rehearsal's original) lies in a folder or store of this machine alone."""
    source = params.twin_of or params.source
    return source == "folder" or (source == "store" and file_uri_path(params.location or "") is not None)


def folder_of(params: ModelParams, environment: Mapping[str, str]) -> Path | None:
    """Where a folder's or hub's model lies on this machine, if it does (it may lack files)."""
    if params.source == "folder" and params.location:
        return Path(params.location)
    if params.source == "hub" and params.location and params.revision and params.hub == "huggingface":
        return hub_cache.snapshot(params.location, params.revision, hub_cache.cache_folder(environment))
    return None


def changed(params: ModelParams, why: str, way_out: str) -> UserError:
    return UserError(Problem(where="", what=f"model {params.location}", why=why, way_out=way_out))
