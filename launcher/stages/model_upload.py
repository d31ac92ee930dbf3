"""A model or adapter of this machine into a store that other machines read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from artifacts.contract import ModelParams, StagePlan, original_prefix
from artifacts.manifest import ArtifactWriter, FileEntry, Manifest, manifest_at
from artifacts.store import Store, file_uri_path
from launcher.digests import Digests
from launcher.stages.in_place import changed, contents


def upload(stage: StagePlan, store: Store, digests: Digests, sent: Callable[[int, int], None]) -> Manifest:
    """Put a model of this machine into a remote store, as an artifact like any other. Files that are there
    already are not sent again, unchanged ones not hashed again. `sent` is told bytes done and in all.

    Of a rehearsal's original only what its twin is made after goes, below `<output>/original`. Raises
    UserError where the folder is not what the plan saw.
    """
    params: ModelParams = stage.params
    folder, files = _files_here(stage, digests)
    expected = Manifest(files=files).content_digest
    if params.twin is None and expected != params.sha256:
        raise changed(params, "it changed since the plan was made", "submit again")
    total_bytes = sum(entry.size_bytes for entry in files)
    done_bytes, counting = 0, threading.Lock()

    def add(size_bytes: int) -> None:
        nonlocal done_bytes
        with counting:
            done_bytes += size_bytes
        sent(done_bytes, total_bytes)

    known = {folder / entry.path: (entry.size_bytes, entry.sha256) for entry in files}
    writer = ArtifactWriter(store, uploaded_prefix(stage))
    writer.add_files({entry.path: folder / entry.path for entry in files}, sent=add, digest=known.__getitem__)
    if Manifest(files=_files_here(stage, digests)[1]).content_digest != expected:
        raise changed(params, "it changed while it was uploaded", "submit again")
    return writer.commit()


def uploaded_prefix(stage: StagePlan) -> str:
    """Where `upload` puts what lies on this machine."""
    return stage.output if stage.params.twin is None else original_prefix(stage)


def _files_here(stage: StagePlan, digests: Digests) -> tuple[Path, list[FileEntry]]:
    """The folder of a model on this machine and the files of it that are needed elsewhere."""
    params: ModelParams = stage.params
    weights = params.twin is None
    if (params.twin_of or params.source) == "folder":
        folder = Path(params.location or "")
    else:
        manifest = manifest_at(params.location or "")
        place = file_uri_path((manifest and manifest.location) or "")
        if manifest is None or place is None:
            raise changed(params, "the artifact is missing", "slipway pin JOB")
        if weights:
            return place, manifest.files
        folder = place
    try:
        return folder, contents(stage.kind).entries(folder, digests, weights=weights)
    except OSError as error:
        raise changed(params, f"can't be read: {error.strerror or error}", "submit again") from error
