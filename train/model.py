"""Stage `model`: the base model's folder (config, tokenizer, safetensors).

A twin is made here. A hub's model is downloaded and checked: into the hub's own cache, to be used in place,
where the store is a folder of this machine; else file by file into the store. A model in another remote store
is used in place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from artifacts.contract import ModelParams, original_prefix
from artifacts.manifest import (
    ArtifactWriter,
    Manifest,
    files_folder,
    is_complete,
    local_folder,
    manifest_at,
    write_marker,
)
from train.data.records import read_records
from train.stage import StageContext, StageUserError, fetch_progress


def run(context: StageContext) -> None:
    params: ModelParams = context.stage.params
    if params.source == "hub":
        from_hub(context, params)
    elif params.twin_of is not None:
        _make_rehearsal_twin(context, params)
    elif params.source == "twin":
        _make_twin(context, params)
    elif params.source == "store":
        use_in_place(context, params)
    else:
        raise StageUserError("a model folder lies on the machine that submits", "submit it from there again")


def _make_twin(context: StageContext, params: ModelParams) -> None:
    from train.twin import make_twin

    data = context.input_folder("data")
    artifact = ArtifactWriter(context.store, context.stage.output)
    for name, content in make_twin(params.twin, _training_texts(data)).items():
        artifact.write_bytes(name, content)
    artifact.commit(twin=True)


def _make_rehearsal_twin(context: StageContext, params: ModelParams) -> None:
    from train.rehearsal import write_rehearsal_twin

    folder = context.work / "twin"
    write_rehearsal_twin(_original(context, params), folder, params.twin, params.trust_remote_code)
    artifact = ArtifactWriter(context.store, context.stage.output)
    artifact.add_folder(folder, move=True)
    artifact.commit(twin=True)


def _original(context: StageContext, params: ModelParams) -> Path:
    """The folder with the config, tokenizer and code that a rehearsal's twin is made after."""
    if params.twin_of == "hub":
        from train.hub import download

        return download(params, weights=False).folder
    uploaded = original_prefix(context.stage)
    if is_complete(context.store, uploaded):
        return local_folder(context.store, uploaded)
    if params.twin_of == "store":
        manifest = _pinned(params)
        small = [entry for entry in manifest.files if not entry.path.endswith(".safetensors")]
        return files_folder(context.store, params.location, dataclasses.replace(manifest, files=small))
    return Path(params.location)


def from_hub(context: StageContext, params: ModelParams) -> None:
    from train.hub import download, transfer

    progress = fetch_progress(context.events)
    if context.store.local_path("") is None:
        artifact = ArtifactWriter(context.store, context.stage.output)
        transfer(params, artifact, context.work / "download", progress=progress)
        artifact.commit()
        return
    snapshot = download(params, progress=progress)
    manifest = Manifest(files=snapshot.files, location=snapshot.folder.as_uri())
    write_marker(context.store, context.stage.output, manifest)


def use_in_place(context: StageContext, params: ModelParams) -> None:
    write_marker(context.store, context.stage.output, _pinned(params))


def _pinned(params: ModelParams) -> Manifest:
    """The manifest of the model in a store, with its place. Raises StageUserError unless it is the pinned
    one."""
    manifest = manifest_at(params.location)
    if manifest is None or manifest.content_digest != params.sha256:
        raise StageUserError(
            f"{params.location}: the artifact is missing or not the pinned one", "`slipway pin JOB` pins anew"
        )
    return manifest


def _training_texts(data: Path) -> Iterator[str]:
    files = sorted(data.glob("train-*.jsonl"))
    for record in read_records(files):
        yield from (message["content"] for message in record.get("messages", ()))
        if "text" in record:
            yield record["text"]
