import dataclasses
import json
from pathlib import Path

import pytest

import train.model
from artifacts import cache, manifest
from artifacts.contract import ModelParams, StageKind, original_prefix
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, local_folder, read_marker, verify
from tests.artifacts.remote import RemoteStore
from tests.train.chat_templates import CONVERSATIONS
from tests.train.stage_inputs import put_data, stage_context
from train.stage import StageUserError


def test_the_stage_writes_the_twin_of_the_training_records(tmp_path):
    store = LocalStore(tmp_path)
    put_data(store, {"train": [CONVERSATIONS["korean"]], "test": [CONVERSATIONS["chinese"]]})
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work"))
    assert verify(store, "models/key") == []
    assert read_marker(store, "models/key").facts == {"twin": True}
    merges = json.loads(store.read_bytes("models/key/tokenizer.json"))["model"]["merges"]
    assert merges  # learnt from the Korean answers


def test_a_model_in_a_folder_is_no_work_for_a_process(tmp_path):
    folder = ModelParams(source="folder", location=str(tmp_path))
    with pytest.raises(StageUserError, match="lies on the machine that submits"):
        train.model.run(stage_context(LocalStore(tmp_path), StageKind.MODEL, tmp_path / "work", model=folder))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A model in another remote store, and the parameters of a stage that takes it."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_used", {})
    store = RemoteStore(tmp_path / "other")
    monkeypatch.setattr(manifest, "open_store", lambda uri: SubFolder(store, uri))
    artifact = ArtifactWriter(store, "merged/abc")
    artifact.write_bytes("config.json", b"{}")
    artifact.write_bytes("model.safetensors", b"w" * 1000)
    digest = artifact.commit().content_digest
    return store, ModelParams(source="store", location="s3://bucket/other/merged/abc", sha256=digest)


class SubFolder(RemoteStore):
    def __init__(self, store, uri):
        super().__init__(store.root / uri.removeprefix(f"{store.uri}").strip("/"))
        self.log = store.log


def test_a_model_in_another_store_is_used_where_it_is(elsewhere, tmp_path):
    other, params = elsewhere
    store = RemoteStore(tmp_path / "store")
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work", model=params))
    assert [info.key for info in store.list("models")] == ["models/key/COMPLETE.json"]
    assert (local_folder(store, "models/key") / "config.json").read_bytes() == b"{}"
    assert len(other.reads()) == 2


def test_another_model_than_the_pinned_one_is_the_users_error(elsewhere, tmp_path):
    params = dataclasses.replace(elsewhere[1], sha256="0" * 64)
    with pytest.raises(StageUserError, match="not the pinned one"):
        train.model.run(
            stage_context(RemoteStore(tmp_path / "store"), StageKind.MODEL, tmp_path / "work", model=params)
        )


def test_a_rehearsal_fetches_no_weights_from_another_store(elsewhere, tmp_path):
    other, params = elsewhere
    params = dataclasses.replace(params, source="twin", twin_of="store")
    context = stage_context(RemoteStore(tmp_path / "store"), StageKind.MODEL, tmp_path / "work", model=params)
    folder = train.model._original(context, params)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert other.reads() == ["config.json"]


def test_a_rehearsal_of_a_folder_elsewhere_takes_what_was_uploaded(elsewhere, tmp_path):
    store = RemoteStore(tmp_path / "store")
    params = ModelParams(source="twin", twin_of="folder", location="/models/base")
    context = stage_context(store, StageKind.MODEL, tmp_path / "work", model=params)
    artifact = ArtifactWriter(store, original_prefix(context.stage))
    artifact.write_bytes("tokenizer.json", b"{}")
    artifact.commit()
    folder = train.model._original(context, params)
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]


def test_the_original_of_a_rehearsal_in_a_folder_is_used_where_it_is(tmp_path):
    params = ModelParams(source="twin", twin_of="folder", location="/models/base")
    context = stage_context(LocalStore(tmp_path), StageKind.MODEL, tmp_path / "work", model=params)
    assert train.model._original(context, params) == Path("/models/base")
