"""Adapters that were trained elsewhere: what is taken of their folders, and how they are keyed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, local_folder, read_marker, verify
from launcher.backends.local import is_light
from launcher.digests import Digests
from launcher.errors import UserError
from launcher.spec.base_model import ModelSource
from launcher.stages import adapter, in_place
from launcher.stages.done import is_done
from launcher.stages.sources import Named, Source
from tests.launcher.plans import QWEN3_8B, write_model

NAMED = Named("adapter")


def write_adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text(name)
    return folder


def find(folder: Path) -> Source:
    return adapter.find(ModelSource(folder=str(folder)), NAMED, Digests())


def test_a_folder_is_used_in_place_and_keyed_by_its_content(tmp_path: Path) -> None:
    folder, store = write_adapter(tmp_path / "tuned"), LocalStore(tmp_path / "store")
    for litter in ("optimizer.pt", "trainer_state.json", "README.md", "training_args.bin"):
        (folder / litter).write_text("{}")
    source = find(folder)
    assert source.problems == [] and source.params is not None
    stage = adapter.plan(source.params)
    assert (stage.kind, stage.output, is_light(stage)) == (StageKind.ADAPTER, f"adapters/{stage.key}", True)
    manifest = in_place.commit(stage, store, Digests())
    assert manifest is not None and manifest.content_digest == source.params.sha256
    assert {entry.path for entry in manifest.files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
    }
    assert local_folder(store, stage.output) == folder and is_done(stage, store)
    moved = folder.rename(tmp_path / "moved")
    assert not is_done(stage, store)
    params = find(moved).params
    assert params is not None and adapter.plan(params).key == stage.key
    (moved / "adapter_model.safetensors").write_text("trained on")
    params = find(moved).params
    assert params is not None and adapter.plan(params).key != stage.key


def test_an_adapter_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    folder, store = write_adapter(tmp_path / "tuned"), LocalStore(tmp_path / "store")
    params = find(folder).params
    assert params is not None
    (folder / "adapter_model.safetensors").write_text("trained on")
    with pytest.raises(UserError, match="changed since the plan"):
        in_place.commit(adapter.plan(params), store, Digests())
    assert read_marker(store, adapter.plan(params).output) is None


def test_a_whole_trained_model_is_taken_as_models_are(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tuned", {**QWEN3_8B})
    (folder / "tokenizer.json").unlink()  # the base has one
    params = find(folder).params
    assert params is not None
    manifest = in_place.commit(adapter.plan(params), LocalStore(tmp_path / "store"), Digests())
    assert manifest is not None
    assert "model-00002-of-00002.safetensors" in {entry.path for entry in manifest.files}


def test_an_artifact_of_a_store_is_used_in_place(tmp_path: Path) -> None:
    """As the adapter of a run is: its training's artifact."""
    team, store = LocalStore(tmp_path / "team"), LocalStore(tmp_path / "store")
    writer = ArtifactWriter(team, "train/abc/final")
    writer.add_folder(write_adapter(tmp_path / "tuned"))
    digest = writer.commit().content_digest
    section = ModelSource(store=f"{team.uri}/train/abc/final", sha256=digest)
    params = adapter.find(section, NAMED, Digests()).params
    assert params is not None
    stage = adapter.plan(params)
    in_place.commit(stage, store, Digests())
    assert verify(store, stage.output) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "lacks adapter_model.safetensors"),
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            "pickled adapter",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "that can be read"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "neither an adapter"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, damage: object, said: str) -> None:
    folder = write_adapter(tmp_path / "tuned")
    damage(folder)  # type: ignore[operator]
    source = find(folder)
    (problem,) = source.problems
    assert source.params is None
    assert str(problem).startswith(f"adapter.folder: {folder}") and said in str(problem)


def test_a_hubs_adapter_that_is_not_pinned_is_refused() -> None:
    source = adapter.find(ModelSource(hub="org/tuned"), NAMED, Digests())
    assert "without adapter.revision" in str(source.problems[0])
