"""What only this machine can do, against a store that gives out no paths."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts import cache
from artifacts.contract import ImageParams, Plan, StageKind, StagePlan
from artifacts.events import Events, events_prefix
from artifacts.manifest import (
    MARKER,
    ArtifactWriter,
    Manifest,
    is_complete,
    local_folder,
    read_marker,
    verify,
    write_marker,
)
from artifacts.segments import read_all
from launcher import digests, staging
from launcher.errors import ClusterError, UserError
from launcher.stages import model_folder
from launcher.staging import needs_laptop, stage_local_inputs
from tests import plan_parts
from tests.artifacts.remote import RemoteStore
from tests.launcher.plans import EIGHT_H100, make_plan, write_job, write_model

RUN = "bot-1"
IMAGE = plan_parts.stage(StageKind.IMAGE, ImageParams(repository="registry/slipway"))
TWIN = {"model": {"twin": {}}}
FOLDER = {"model": {"folder": "model"}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_used", {})
    return RemoteStore(tmp_path / "remote")


def plan_of(folder: Path, *, image: bool = True, **sections: object) -> Plan:
    write_job(folder, **sections)
    made = make_plan(folder, EIGHT_H100)
    stages = [*([IMAGE] if image else []), *made.stages]
    return plan_parts.plan(RemoteStore(folder / "remote"), stages, engine="ray")


class Builder:
    """Stands in for building and pushing."""

    def __init__(self, store: RemoteStore) -> None:
        self.store, self.built = store, 0

    def __call__(self, stage: StagePlan, events: Events) -> None:
        self.built += 1
        events.progress(1, 1, "layers")
        ArtifactWriter(self.store, stage.output).commit(pilot="r/p@sha256:1", train="r/t@sha256:2")


def stage(plan: Plan, store: RemoteStore, folder: Path) -> list[str]:
    done = stage_local_inputs(plan, RUN, store, folder / "work", image=Builder(store))
    return [stage.kind for stage in done]


def rows(store: RemoteStore) -> Iterator[tuple[str, str]]:
    return ((row["stage"], row["kind"]) for row in read_all(store, events_prefix(RUN)))


def forbid_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(digests, "hash_file", refuse)


def age(folder: Path) -> None:
    """Make files old enough for their digests to be remembered."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))


def test_image_data_and_model_folder_are_staged_in_order(tmp_path: Path, store: RemoteStore) -> None:
    folder = write_model(tmp_path / "model")
    plan = plan_of(tmp_path, **FOLDER)
    assert [stage.kind for stage in needs_laptop(plan, store)] == ["image", "data", "model"]
    assert stage(plan, store, tmp_path) == ["image", "data", "model"]
    assert needs_laptop(plan, store) == []
    output = plan.stage(StageKind.MODEL).output
    manifest = read_marker(store, output)
    assert manifest is not None and manifest.location is None
    assert manifest.content_digest == plan.stage(StageKind.MODEL).params.sha256
    assert verify(store, output) == [] and verify(store, plan.stage(StageKind.DATA).output) == []
    fetched = local_folder(store, output)
    assert {path.name for path in fetched.iterdir()} == set(model_folder.model_files(folder))


def test_boards_see_it_as_any_other_stage(tmp_path: Path, store: RemoteStore) -> None:
    write_model(tmp_path / "model")
    stage(plan_of(tmp_path, **FOLDER), store, tmp_path)
    told = list(rows(store))
    for kind in ("image", "data", "model"):
        assert [what for name, what in told if name == kind and what != "progress"] == ["started", "finished"]
    sent = [
        row
        for row in read_all(store, events_prefix(RUN))
        if (row["stage"], row["kind"]) == ("model", "progress")
    ]
    assert sent[-1]["done"] == sent[-1]["total"] > 0 and sent[-1]["unit"] == "bytes"


def test_a_second_time_sends_nothing_and_hashes_nothing(
    tmp_path: Path, store: RemoteStore, monkeypatch
) -> None:
    write_model(tmp_path / "model")
    plan = plan_of(tmp_path, **FOLDER)
    stage(plan, store, tmp_path)
    before, puts = list(rows(store)), store.puts()
    forbid_hashing(monkeypatch)
    assert stage(plan, store, tmp_path) == []
    assert list(rows(store)) == before and store.puts() == puts


def test_an_upload_that_was_cut_off_goes_on(tmp_path: Path, store: RemoteStore, monkeypatch) -> None:
    folder = write_model(tmp_path / "model", shards=4)
    age(folder)
    plan = plan_of(tmp_path, image=False, **FOLDER)
    output = plan.stage(StageKind.MODEL).output
    whole = store.put_file

    def cut_off(key: str, source: Path, **options: object) -> None:
        if key.endswith("00003-of-00004.safetensors"):
            raise ConnectionError("the network is gone")
        whole(key, source, **options)

    monkeypatch.setattr(store, "put_file", cut_off)
    with pytest.raises(ConnectionError):
        stage(plan, store, tmp_path)
    assert not is_complete(store, output) and ("model", "failed") in rows(store)
    sent = store.puts()
    monkeypatch.setattr(store, "put_file", whole)
    forbid_hashing(monkeypatch)  # the digests of the first time were kept
    assert stage(plan, store, tmp_path) == ["model"]
    assert len(store.puts()) == len(model_folder.model_files(folder)) and set(sent) < set(store.puts())
    assert verify(store, output) == []


def test_a_folder_that_changed_since_the_plan_is_refused(tmp_path: Path, store: RemoteStore) -> None:
    folder = write_model(tmp_path / "model")
    plan = plan_of(tmp_path, image=False, **FOLDER)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="it changed since the plan was made; submit again"):
        stage(plan, store, tmp_path)
    assert not is_complete(store, plan.stage(StageKind.MODEL).output)


def test_a_folder_that_changes_meanwhile_is_refused(tmp_path: Path, store: RemoteStore, monkeypatch) -> None:
    folder = write_model(tmp_path / "model")
    plan = plan_of(tmp_path, image=False, **FOLDER)
    whole = store.put_file

    def touched(key: str, source: Path, **options: object) -> None:
        whole(key, source, **options)
        if key.endswith("00001-of-00002.safetensors"):
            (folder / "model-00001-of-00002.safetensors").write_bytes(b"other weights")

    monkeypatch.setattr(store, "put_file", touched)
    with pytest.raises(UserError, match="it changed while it was uploaded"):
        stage(plan, store, tmp_path)
    assert not is_complete(store, plan.stage(StageKind.MODEL).output)


def test_a_bad_record_is_told_and_leaves_nothing(tmp_path: Path, store: RemoteStore) -> None:
    plan = plan_of(tmp_path, image=False, **TWIN)
    path = tmp_path / "train.jsonl"
    row = {"instruction": "x" * 10, "output": 1}
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], json.dumps(row).ljust(len(lines[-1]))]) + "\n")
    with pytest.raises(UserError):
        stage(plan, store, tmp_path)
    assert list(store.list("data")) == [] and ("data", "failed") in rows(store)


def test_a_twin_is_made_in_the_cluster(tmp_path: Path, store: RemoteStore) -> None:
    plan = plan_of(tmp_path, **TWIN)
    assert [stage.kind for stage in needs_laptop(plan, store)] == ["image", "data"]


def test_of_a_rehearsals_original_no_weights_are_sent(tmp_path: Path, store: RemoteStore) -> None:
    write_model(tmp_path / "model")
    write_job(tmp_path, **FOLDER)
    made = make_plan(tmp_path, rehearse=True)
    plan = plan_parts.plan(store, made.stages)
    assert [stage.kind for stage in needs_laptop(plan, store)] == ["data", "model"]
    stage(plan, store, tmp_path)
    assert needs_laptop(plan, store) == []
    assert not is_complete(store, plan.stage(StageKind.MODEL).output)  # the twin itself is made by a pod
    assert not any("safetensors" in key for key in store.puts())
    assert any(key.endswith("original/tokenizer.json") for key in store.puts())


def test_a_marker_that_points_to_this_machine_is_worthless_to_others(
    tmp_path: Path, store: RemoteStore
) -> None:
    folder = write_model(tmp_path / "model")
    plan = plan_of(tmp_path, image=False, **FOLDER)
    output = plan.stage(StageKind.MODEL).output
    files = model_folder.entries(folder, digests.Digests())
    write_marker(store, output, Manifest(files=files, location=folder.as_uri()))
    assert stage(plan, store, tmp_path) == ["data", "model"]
    marker = read_marker(store, output)
    assert marker is not None and marker.location is None


def test_files_that_somebody_else_cleared_away_are_noticed(
    tmp_path: Path, store: RemoteStore, monkeypatch
) -> None:
    plan = plan_of(tmp_path, image=False, **TWIN)
    whole = staging.data_run.run

    def cleared(node: StagePlan, *rest: object) -> None:
        whole(node, *rest)
        store.delete(f"{node.output}/train-00000.jsonl")

    monkeypatch.setattr(staging.data_run, "run", cleared)
    with pytest.raises(ClusterError, match="submit again"):
        stage(plan, store, tmp_path)
    assert not store.exists(f"{plan.stage(StageKind.DATA).output}/{MARKER}")


def test_two_at_once_stage_once(tmp_path: Path) -> None:
    write_model(tmp_path / "model", shards=4)
    plan = plan_of(tmp_path, image=False, **FOLDER)
    slow = RemoteStore(tmp_path / "remote", pause_s=0.05)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=stage, args=(plan, slow, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(slow.puts()) == len(set(slow.puts()))
    assert [row for row in rows(slow) if row == ("model", "started")] == [("model", "started")]
