"""`launcher.garbage`: nothing that a run refers to, everything else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import is_complete
from launcher import garbage, record
from tests.launcher.driving import make_plan, make_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_garbage_is_what_no_run_refers_to(store: LocalStore) -> None:
    first, second = make_run(store, "one", "a"), make_run(store, "two", "b")
    shared = make_plan(store, name="three", key="a")  # the same artifacts as `one`
    record.create(store, shared, shared.run_id)
    assert garbage.find(store) == []
    record.remove(store, first.run_id)
    assert first.run_id not in record.run_ids(store)
    assert garbage.find(store) == []  # `three` still refers to them
    record.remove(store, shared.run_id)
    found = garbage.find(store)
    assert {item.path for item in found} == {"/".join(s.output.split("/")[:2]) for s in first.stages}
    assert all(item.size_bytes > 100 for item in found)
    garbage.collect(store, found)
    assert not any(is_complete(store, stage.output) for stage in first.stages)
    assert all(is_complete(store, stage.output) for stage in second.stages)
    assert garbage.find(store) == []


def test_garbage_takes_uncommitted_leftovers_too(store: LocalStore) -> None:
    make_run(store, "one", "a")
    store.write_bytes("merged/dead/model-00001.safetensors", b"x" * 50)
    assert [(item.path, item.size_bytes) for item in garbage.find(store)] == [("merged/dead", 50)]


def test_writes_that_a_kill_cut_off_are_litter_after_a_day(store: LocalStore) -> None:
    plan = make_run(store, "one", "a")
    folder = store.root / plan.stage("merge").output
    for name, age_s in ((".tmp-0123", 2 * 86400.0), (".tmp-4567", 60.0)):
        (folder / name).write_bytes(b"x" * 10)
        os.utime(folder / name, (time.time() - age_s,) * 2)
    (item,) = garbage.find(store)
    assert item.unfinished is not None
    assert (item.path, item.size_bytes) == (f"{plan.stage('merge').output}/.tmp-0123", 10)
    garbage.collect(store, [item])
    assert not (folder / ".tmp-0123").exists() and (folder / ".tmp-4567").exists()
    assert is_complete(store, plan.stage("merge").output)
