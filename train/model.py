"""Stage `model`: the base model's folder (config, tokenizer, safetensors).

A twin is made here; a hub's model is downloaded into the hub's own cache, checked, and used in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from artifacts.contract import ModelParams
from artifacts.manifest import ArtifactWriter, Manifest, local_folder, write_marker
from artifacts.store import open_store
from train.prepare import read_conversations
from train.stage import StageContext, StageUserError


def run(context: StageContext) -> None:
    params: ModelParams = context.stage.params
    if params.source == "hub":
        _download(context, params)
    elif params.twin_of is not None:
        _make_rehearsal_twin(context, params)
    elif params.source == "twin":
        _make_twin(context, params)
    else:
        raise StageUserError(f"a model from a {params.source} needs no process of its own")


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
    if params.twin_of == "store":
        parent, _, name = params.location.rstrip("/").rpartition("/")
        return local_folder(open_store(parent), name)
    return Path(params.location)


def _download(context: StageContext, params: ModelParams) -> None:
    from train.hub import download

    def progress(done: int, total: int) -> None:
        context.events.progress(done, total, "bytes")

    snapshot = download(params, progress=progress)
    manifest = Manifest(files=snapshot.files, location=snapshot.folder.as_uri())
    write_marker(context.store, context.stage.output, manifest)


def _training_texts(data: Path) -> Iterator[str]:
    files = sorted(data.glob("train-*.jsonl"))
    for messages in read_conversations(files):
        yield from (message["content"] for message in messages)
