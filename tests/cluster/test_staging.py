"""Staging into a real S3 bucket, and reading it back through the node cache."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import train.model
from artifacts import cache
from artifacts.contract import ModelParams, Plan, StageKind
from artifacts.download import DamagedError
from artifacts.manifest import ArtifactWriter, is_complete, local_folder, read_marker, verify
from artifacts.store import Store, open_store
from launcher.errors import ClusterError, known_error
from launcher.stages.done import is_done
from launcher.staging import needs_laptop, stage_local_inputs
from tests import plan_parts
from tests.launcher.plans import EIGHT_H100, make_plan, write_job, write_model
from tests.train.stage_inputs import TWIN, put_data, stage_context
from tests.train.test_hub import REPOSITORY, REVISION, Hub
from tests.train.test_twin import TEXTS
from train.checkpoint import Choice, Name, choose
from train.twin import make_twin

RUN = "staging-1"
LARGE = "model-00001-of-00002.safetensors"
LARGE_BYTES = 200_000_000

processes = multiprocessing.get_context("spawn")


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A fresh prefix in the bucket, and a node cache of its own."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_used", {})
    fresh = open_store(f"{store.uri}/staging-{uuid.uuid4().hex[:8]}")
    yield fresh
    fresh.delete_many([info.key for info in fresh.list("")])


def plan_of(folder: Path, store: Store) -> Plan:
    """A job with local data and a model folder of 200 MB."""
    write_model(folder / "model")
    (folder / "model" / LARGE).write_bytes(os.urandom(1_000_000) * (LARGE_BYTES // 1_000_000))
    for path in (folder / "model").iterdir():
        os.utime(path, (1, 1))
    write_job(folder, model={"folder": "model"})
    return plan_parts.plan(store, make_plan(folder, EIGHT_H100).stages, engine="ray")


def stage(plan: Plan, store_uri: str, folder: Path) -> list[str]:
    """Also the body of a process."""
    done = stage_local_inputs(plan, RUN, open_store(store_uri), folder / "work", image=lambda *_: None)
    return [stage.kind for stage in done]


def objects(store: Store) -> dict[str, tuple[Any, Any]]:
    """When each object was written, as the service says; those of the run left out."""
    import boto3

    where = urlsplit(store.uri)
    pages = (
        boto3.client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=where.netloc, Prefix=f"{where.path[1:]}/")
    )
    found = {item["Key"]: (item["LastModified"], item["ETag"]) for page in pages for item in page["Contents"]}
    return {key: written for key, written in found.items() if "/runs/" not in key}


def test_a_second_submit_uploads_nothing(bucket: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, bucket)
    assert stage(plan, bucket.uri, tmp_path) == ["data", "model"]
    assert needs_laptop(plan, bucket) == []
    before = objects(bucket)
    time.sleep(1.1)  # beyond the resolution of the service's times
    assert stage(plan, bucket.uri, tmp_path) == []
    assert objects(bucket) == before
    for kind in (StageKind.DATA, StageKind.MODEL):
        assert verify(bucket, plan.stage(kind).output) == []


def test_an_upload_that_was_killed_goes_on(bucket: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, bucket)
    output = plan.stage(StageKind.MODEL).output
    process = processes.Process(target=stage, args=(plan, bucket.uri, tmp_path))
    process.start()
    deadline = time.monotonic() + 60
    while not any(bucket.list(output)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    assert not is_complete(bucket, output)
    there = {key: written for key, written in objects(bucket).items() if "/models/" in key}
    time.sleep(1.1)
    assert stage(plan, bucket.uri, tmp_path) == ["model"]
    assert there and there.items() <= objects(bucket).items()  # not sent again
    assert verify(bucket, output) == []


def fetch(store_uri: str, prefix: str, expected: str) -> None:
    """The body of a process."""
    folder = local_folder(open_store(store_uri), prefix)
    assert (folder / LARGE).stat().st_size == LARGE_BYTES
    (Path(expected) / f"{os.getpid()}-{(folder / LARGE).stat().st_ino}").touch()


def test_processes_of_a_node_share_one_copy(bucket: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, bucket)
    stage(plan, bucket.uri, tmp_path)
    output, seen = plan.stage(StageKind.MODEL).output, tmp_path / "seen"
    seen.mkdir()
    readers = [processes.Process(target=fetch, args=(bucket.uri, output, str(seen))) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(120)
    assert [reader.exitcode for reader in readers] == [0] * 4
    assert len({path.name.split("-")[1] for path in seen.iterdir()}) == 1  # one file
    folder = local_folder(bucket, output)
    assert (folder / LARGE).read_bytes() == (tmp_path / "model" / LARGE).read_bytes()


def test_damage_in_the_bucket_is_named(bucket: Store, tmp_path: Path) -> None:
    writer = ArtifactWriter(bucket, "prepared/key")
    writer.write_bytes("train-00000.arrow", b"a" * 1000)
    writer.commit()
    bucket.write_bytes("prepared/key/train-00000.arrow", b"a" * 999 + b"b")
    with pytest.raises(DamagedError) as told:
        local_folder(bucket, "prepared/key")
    assert f"{bucket.uri}/prepared/key/train-00000.arrow is damaged" in told.value.cause


def test_the_newest_whole_checkpoint_is_chosen(bucket: Store) -> None:
    for step in (2, 4):
        writer = ArtifactWriter(bucket, f"train/key/checkpoint-{step}-1")
        writer.write_bytes("optimizer.pt", b"state" * 1000)
        writer.commit(step=step)
    bucket.write_bytes("train/key/checkpoint-4-1/optimizer.pt", b"stale" * 1000)
    choice = choose(bucket, "train/key")
    assert isinstance(choice, Choice) and choice.name == Name(2, 1)
    assert list(choice.damaged) == [Name(4, 1)]


def test_a_model_of_another_bucket_is_used_where_it_is(bucket: Store, tmp_path: Path) -> None:
    other = open_store(f"{bucket.uri}/other")
    writer = ArtifactWriter(other, "merged/abc")
    writer.write_bytes("config.json", b"{}")
    digest = writer.commit().content_digest
    params = ModelParams(source="store", location=f"{other.uri}/merged/abc", sha256=digest)
    context = stage_context(bucket, StageKind.MODEL, tmp_path / "work", model=params)
    stage_local_inputs(context.plan, RUN, bucket, tmp_path / "work", image=lambda *_: None)
    assert is_done(context.stage, bucket)
    assert (local_folder(bucket, context.stage.output) / "config.json").read_bytes() == b"{}"


def test_a_hub_model_goes_straight_into_the_bucket(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(make_twin(dataclasses.replace(TWIN, hidden_size=64), TEXTS))
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    put_data(bucket, {"train": []})
    model = ModelParams(source="hub", location=REPOSITORY, revision=REVISION)
    try:
        train.model.run(stage_context(bucket, StageKind.MODEL, tmp_path / "work", model=model))
    finally:
        hub.shutdown()
        hub.server_close()
    manifest = read_marker(bucket, "models/key")
    assert manifest is not None and manifest.location is None
    assert verify(bucket, "models/key") == []


def test_a_bucket_that_is_not_there_is_the_clusters_trouble(bucket: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, bucket)
    with pytest.raises(Exception, match=r"bucket") as told:
        stage(plan, f"s3://no-such-bucket-{uuid.uuid4().hex}/x", tmp_path)
    error = told.value
    assert isinstance(known_error(error), ClusterError)
