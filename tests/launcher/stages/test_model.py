"""Models used in place: local folders, the hub's cache, artifacts of a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.contract import ModelParams, StageKind
from artifacts.local import LocalStore
from artifacts.manifest import local_folder, read_marker, verify
from launcher.digests import Digests
from launcher.errors import UserError
from launcher.stages import in_place, model_folder
from launcher.stages.hub_cache import cache_folder
from tests.launcher.plans import EIGHT_H100, make_plan, reasons, write_job, write_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
LFS = "a" * 64


def problem_of(folder: Path, model_section: dict[str, object], **keywords: object) -> str:
    write_job(folder, model=model_section)
    with pytest.raises(UserError) as refused:
        make_plan(folder, EIGHT_H100, **keywords)
    (problem,) = refused.value.problems
    return str(problem)


def test_a_folder_is_used_in_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    plan = make_plan(tmp_path, EIGHT_H100)
    stage, store = plan.stage(StageKind.MODEL), LocalStore(tmp_path / "store")
    manifest = in_place.commit(stage, store, Digests())
    assert manifest is not None and manifest.content_digest == stage.params.sha256
    assert local_folder(store, stage.output) == folder
    assert [info.key for info in store.list("models")] == [f"{stage.output}/COMPLETE.json"]
    assert verify(store, stage.output) == []
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"model-00001-of-00002.safetensorZ")
    assert verify(store, stage.output) == [
        "model-00001-of-00002.safetensors: its SHA-256 differs from the manifest's"
    ]


def test_a_moved_folder_is_the_same_model_and_is_found_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    stage, store = make_plan(tmp_path, EIGHT_H100).stage(StageKind.MODEL), LocalStore(tmp_path / "store")
    in_place.commit(stage, store, Digests())
    folder.rename(tmp_path / "moved")
    write_job(tmp_path, model={"folder": "moved"})
    moved = make_plan(tmp_path, EIGHT_H100).stage(StageKind.MODEL)
    assert moved.key == stage.key
    in_place.commit(moved, store, Digests())
    assert local_folder(store, moved.output) == tmp_path / "moved"


def test_only_the_models_own_files_count(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    names = model_folder.model_files(folder)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    tokenizer = ["tokenizer.json", "tokenizer_config.json"]
    assert names == sorted(["config.json", *shards, "model.safetensors.index.json", *tokenizer])
    for name in ("COMPLETE.json", "README.md", "optimizer.pt", "consolidated.safetensors", ".cache.json"):
        (folder / name).write_text("{}")
    assert model_folder.model_files(folder) == names
    (folder / "modeling_own.py").write_text("")
    (folder / "chat_template.jinja").write_text("")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tools.jinja").write_text("")
    added = {"modeling_own.py", "chat_template.jinja", "additional_chat_templates/tools.jinja"}
    assert set(model_folder.model_files(folder)) - set(names) == added


def test_a_folder_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    stage, store = make_plan(tmp_path, EIGHT_H100).stage(StageKind.MODEL), LocalStore(tmp_path / "store")
    (folder / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(UserError, match="changed since the plan"):
        in_place.commit(stage, store, Digests())
    assert read_marker(store, stage.output) is None


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("config.json", "has no config.json that can be read"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors.index.json", "has no safetensors weights"),
        ("model-00002-of-00002.safetensors", "lacks model-00002-of-00002.safetensors, which"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, remove: str, said: str) -> None:
    (write_model(tmp_path / "model") / remove).unlink()
    text = problem_of(tmp_path, {"folder": "model"})
    assert said in text and "job.yaml:" in text


def test_pickled_weights_are_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    text = problem_of(tmp_path, {"folder": "model"})
    assert "pickled weights only (pytorch_model.bin)" in text and "save_pretrained" in text


def test_an_index_names_files_of_its_folder_only(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "has no safetensors weights" in problem_of(tmp_path, {"folder": "model"})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"folder": "nowhere"}, "does not exist"),
        ({"folder": "train.jsonl"}, "is not a folder"),
        ({"hub": "Qwen/Qwen3-8B"}, "not pinned: without model.revision"),
        ({"store": "file:///models/abc"}, "not pinned: without model.sha256"),
        ({"store": "file:///nowhere/abc", "sha256": "0" * 64}, "there is no complete artifact"),
    ],
)
def test_what_can_not_be_used_is_said_at_its_place(
    tmp_path: Path, section: dict[str, object], said: str
) -> None:
    text = problem_of(tmp_path, section)
    assert said in text and text.startswith(f"{tmp_path}/job.yaml:")
    if "pinned" in said:
        assert f"slipway pin {tmp_path}/job.yaml" in text


def write_snapshot(cache: Path) -> Path:
    """A model as huggingface_hub caches it: large blobs named by their SHA-256, small ones by git's SHA-1."""
    repository = cache / "models--Qwen--Qwen3-8B"
    plain = write_model(repository / "plain", shards=1)
    snapshot, blobs = repository / "snapshots" / REVISION, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for index, file in enumerate(sorted(plain.iterdir())):
        blob = blobs / (LFS if file.suffix == ".safetensors" else f"{index:040x}")
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    plain.rmdir()
    return snapshot


def test_the_hubs_cache_is_used_in_place_with_its_own_digests(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "hub")
    environment = {"HF_HOME": str(tmp_path)}
    write_job(tmp_path, model={"hub": "Qwen/Qwen3-8B", "revision": REVISION})
    plan = make_plan(tmp_path, EIGHT_H100, environment=environment)
    assert reasons(plan)["strategy.type"][0] == "ddp"  # the size is known from the cached config
    stage, store = plan.stage(StageKind.MODEL), LocalStore(tmp_path / "store")
    manifest = in_place.commit(stage, store, Digests(), environment)
    assert manifest is not None
    assert local_folder(store, stage.output) == snapshot
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    assert digests["model-00001-of-00001.safetensors"] == LFS  # taken from the blob's name …
    assert verify(store, stage.output) == [  # … and checked when it is read
        "model-00001-of-00001.safetensors: its SHA-256 differs from the manifest's"
    ]


def test_a_hub_model_that_is_not_cached_or_not_whole_is_left_to_the_stage(tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path)}
    write_job(tmp_path, model={"hub": "Qwen/Qwen3-8B", "revision": REVISION})
    plan = make_plan(tmp_path, EIGHT_H100, environment=environment)
    value, reason = reasons(plan)["strategy.type"]
    assert value == "fsdp" and "size is unknown" in reason
    stage, store = plan.stage(StageKind.MODEL), LocalStore(tmp_path / "store")
    assert in_place.commit(stage, store, Digests(), environment) is None
    snapshot = write_snapshot(tmp_path / "hub")
    (snapshot / "model-00001-of-00001.safetensors").unlink()  # a download that was cut off
    assert in_place.commit(stage, store, Digests(), environment) is None
    assert read_marker(store, stage.output) is None


def test_an_artifact_of_a_store_is_used_in_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    source, elsewhere = make_plan(tmp_path, EIGHT_H100).stage(StageKind.MODEL), LocalStore(tmp_path / "team")
    manifest = in_place.commit(source, elsewhere, Digests())
    assert manifest is not None
    uri = f"{elsewhere.uri}/{source.output}"
    write_job(tmp_path, model={"store": uri, "sha256": manifest.content_digest})
    plan = make_plan(tmp_path, EIGHT_H100)
    store = LocalStore(tmp_path / "store")
    assert in_place.commit(plan.stage(StageKind.MODEL), store, Digests()) is not None
    assert local_folder(store, plan.stage(StageKind.MODEL).output) == folder
    assert "model.sha256 says 000000000000…" in problem_of(tmp_path, {"store": uri, "sha256": "0" * 64})


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_finds_the_hubs_cache(environment: dict[str, str], folder: str) -> None:
    assert cache_folder(environment) == Path(folder)


def test_a_rehearsal_reads_no_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model-00001-of-00002.safetensors").unlink()
    write_job(tmp_path, model={"folder": "model"})
    params: ModelParams = make_plan(tmp_path, rehearse=True).stage(StageKind.MODEL).params
    assert (params.source, params.twin_of, params.location) == ("twin", "folder", str(folder))
    assert params.twin is not None and params.twin.hidden_size == 64
