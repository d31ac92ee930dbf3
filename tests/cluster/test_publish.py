"""A publication in a bucket of a real service, from a store in another prefix of it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.contract import Plan, StageKind
from artifacts.events import events_prefix
from artifacts.manifest import read_marker, verify
from artifacts.s3 import S3Store
from artifacts.segments import read_all
from artifacts.store import Store, open_store
from launcher.errors import UserError
from launcher.publishing import ready
from tests.artifacts.store_conformance import ROOT, keys
from tests.launcher.publishing import runs
from tests.launcher.synthetic_run import RUN_ID

PRODUCTS = ["model", "adapter", "quantized", "gguf"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "SLIPWAY_TEST_STORE" not in os.environ:
        pytest.exit("no store to test on: set SLIPWAY_TEST_STORE to s3://bucket/prefix", returncode=2)
    if endpoint := os.environ.get("SLIPWAY_TEST_S3_ENDPOINT"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("SLIPWAY_S3_PART_BYTES", str(5 * 1024 * 1024))
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def place() -> Iterator[str]:
    """`s3://bucket/prefix` of this test alone; emptied afterwards."""
    uri = f"{os.environ['SLIPWAY_TEST_STORE']}/publish-{uuid.uuid4().hex[:8]}"
    yield uri
    store = open_store(uri)
    for write in store.unfinished(-60):
        store.discard(write)
    store.delete_many(keys(store))


@pytest.fixture
def made(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Plan]:
    """A finished run in `place`/store, whose plan publishes to `place`/public/bot."""
    monkeypatch.setattr(runs, "WEIGHTS", runs.WEIGHTS * 8)  # 24 MB: in parts
    local, plan = runs.make(tmp_path / "store", f"{place}/public/bot", products=PRODUCTS)
    store = open_store(f"{place}/store")
    for info in local.list(""):
        store.put_file(info.key, local.local_path(info.key))
    return store, dataclasses.replace(plan, store=store.uri)


def command(plan: Plan, folder: Path) -> list[str]:
    file = folder / "plan.json"
    file.write_bytes(plan.to_json())
    arguments = ["publish", "--plan", str(file), "--run", RUN_ID, "--work", str(folder / "work")]
    return [sys.executable, "-P", "-m", "launcher.publishing", *arguments]


def run(argv: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def written(store: S3Store) -> dict[str, object]:
    """When each object of the bucket was written."""
    pages = store._connection.client.get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=store.bucket, Prefix=store.prefix)
    return {item["Key"]: item["LastModified"] for page in found for item in page.get("Contents", [])}


def test_a_publication_is_whole_and_made_once(made: tuple[Store, Plan], place: str, tmp_path: Path) -> None:
    store, plan = made
    ready.require(plan, store, print)
    run(command(plan, tmp_path))
    public = open_store(f"{place}/public")
    assert isinstance(public, S3Store)
    assert verify(public, "bot") == []
    manifest = read_marker(public, "bot")
    told = read_marker(store, plan.stage(StageKind.PUBLISH).output)
    assert manifest is not None and told is not None
    assert told.facts == {"address": f"{place}/public/bot", "revision": manifest.content_digest}
    assert {"README.md", "model.safetensors", "gguf/Modelfile"} <= {file.path for file in manifest.files}
    card = public.read_bytes("bot/README.md").decode()
    assert "s3://" not in card and place.rpartition("/")[2] not in card
    assert not [info.key for info in public.list("bot") if "probe" in info.key]

    store.delete(f"{plan.stage(StageKind.PUBLISH).output}/COMPLETE.json")
    before = written(public)
    run(command(plan, tmp_path))  # the bucket has it all: only the record is made again
    assert written(public) == before


def test_a_bucket_that_is_not_there_is_told_before_anything_begins(made: tuple[Store, Plan]) -> None:
    store, plan = made
    stage = plan.stage(StageKind.PUBLISH)
    elsewhere = dataclasses.replace(stage.params, to=f"s3://no-{uuid.uuid4().hex}/bot")
    stages = [*(one for one in plan.stages if one != stage), dataclasses.replace(stage, params=elsewhere)]
    with pytest.raises(UserError, match=r"publish.to: s3://no-\w+/bot: there is no such bucket; .*name one"):
        ready.require(dataclasses.replace(plan, stages=stages), store, print)


def test_one_that_is_killed_goes_on(made: tuple[Store, Plan], place: str, tmp_path: Path) -> None:
    store, plan = made
    argv = command(plan, tmp_path)
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
    public = open_store(f"{place}/public")
    deadline = time.monotonic() + 120
    while not list(public.list("bot")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if read_marker(public, "bot") is not None:
        pytest.skip("it was faster than the test")
    run(argv)
    assert verify(public, "bot") == []
    ends = [row["kind"] for row in read_all(store, events_prefix(RUN_ID)) if row["stage"] == "publish"]
    assert "finished" in ends


def test_a_newer_one_takes_the_place_of_the_older(
    made: tuple[Store, Plan], place: str, tmp_path: Path
) -> None:
    _, plan = made
    run(command(plan, tmp_path))
    stage = plan.stage(StageKind.PUBLISH)
    params = dataclasses.replace(stage.params, products=["gguf"])
    newer = dataclasses.replace(stage, params=params, output=f"{stage.output}-2")
    stages = [newer if one.kind == StageKind.PUBLISH else one for one in plan.stages]
    run(command(dataclasses.replace(plan, stages=stages), tmp_path))
    public = open_store(f"{place}/public")
    assert verify(public, "bot") == []
    assert "bot/model.safetensors" not in {info.key for info in public.list("bot")}
    assert "bot/harbour-bot-q4_k_m.gguf" in {info.key for info in public.list("bot")}
