import json
from pathlib import Path

import pytest

import train.model
from artifacts.contract import ModelParams, StageKind
from artifacts.local import LocalStore
from artifacts.manifest import read_marker, verify
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
    with pytest.raises(StageUserError, match="a model from a folder"):
        train.model.run(stage_context(LocalStore(tmp_path), StageKind.MODEL, tmp_path / "work", model=folder))


def test_the_original_of_a_rehearsal_in_a_folder_is_used_where_it_is(tmp_path):
    params = ModelParams(source="twin", twin_of="folder", location="/models/base")
    context = stage_context(LocalStore(tmp_path), StageKind.MODEL, tmp_path / "work", model=params)
    assert train.model._original(context, params) == Path("/models/base")
