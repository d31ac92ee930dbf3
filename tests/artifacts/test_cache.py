from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from artifacts import cache
from artifacts.cache import CacheError, Evictable
from artifacts.download import DamagedError
from artifacts.local import LocalStore
from artifacts.manifest import (
    ArtifactWriter,
    Manifest,
    hash_file,
    local_folder,
    read_marker,
    write_marker,
)
from artifacts.store import ObjectMissingError
from tests.artifacts.remote import RemoteStore

PREFIX = "models/key"
FILES = {"config.json": b"{}", "empty": b"", "deep/weights": b"w" * 3_000_000}

processes = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> RemoteStore:
    return put(RemoteStore(tmp_path / "store"))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's cache. What this process uses is forgotten after each test, as at a process's end."""
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SLIPWAY_CACHE_BYTES", raising=False)
    monkeypatch.setattr(cache, "_used", {})
    return tmp_path / "cache"


def put(store: RemoteStore, prefix: str = PREFIX, files: dict[str, bytes] = FILES) -> RemoteStore:
    writer = ArtifactWriter(store, prefix)
    for path, content in files.items():
        writer.write_bytes(path, content)
    writer.commit()
    return store


def put_sized(store: RemoteStore, name: str, size_bytes: int) -> str:
    put(store, f"models/{name}", {"weights": name[0].encode() * size_bytes})
    return f"models/{name}"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def end_process() -> None:
    """What the kernel does to locks when a process ends."""
    for lock in cache._used.values():
        os.close(lock)
    cache._used.clear()


def entries(root: Path) -> set[str]:
    return {json.loads(path.read_text())["prefix"] for path in root.glob("entries/*.json")}


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_an_artifact_is_fetched_once_and_read_only(store: RemoteStore) -> None:
    told: list[tuple[int, int]] = []
    folder = local_folder(store, PREFIX, progress=lambda done, total: told.append((done, total)))
    assert content(folder) == FILES
    assert told[-1] == (3_000_002, 3_000_002)
    assert sorted(store.reads()) == sorted(f"{PREFIX}/{path}" for path in FILES)
    assert not any(path.stat().st_mode & 0o222 for path in folder.rglob("*") if path.is_file())
    end_process()
    assert local_folder(store, PREFIX) == folder
    assert len(store.reads()) == len(FILES)


def test_the_same_content_under_another_key_is_not_fetched_again(store: RemoteStore) -> None:
    put(store, "models/other")
    assert local_folder(store, PREFIX) == local_folder(store, "models/other")
    assert len(store.reads()) == len(FILES)


def test_a_model_in_another_store_is_fetched_from_there(
    store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_marker(store, PREFIX)
    assert manifest is not None
    elsewhere = RemoteStore(tmp_path / "elsewhere")
    for path, body in FILES.items():
        elsewhere.write_bytes(path, body)
    here = LocalStore(tmp_path / "here")
    write_marker(here, PREFIX, Manifest(files=manifest.files, location="s3://other/merged/1"))
    monkeypatch.setattr("artifacts.manifest.open_store", {"s3://other/merged/1": elsewhere}.__getitem__)
    assert content(local_folder(here, PREFIX)) == FILES
    assert sorted(elsewhere.reads()) == sorted(FILES)


def test_without_a_marker_there_is_nothing_to_fetch(store: RemoteStore) -> None:
    with pytest.raises(ObjectMissingError):
        local_folder(store, "models/absent")


def test_files_taken_away_are_fetched_again(store: RemoteStore) -> None:
    folder = local_folder(store, PREFIX)
    end_process()
    (folder / "config.json").unlink()
    assert content(local_folder(store, PREFIX)) == FILES


def test_after_another_start_of_the_machine_every_byte_is_read_once(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_folder(store, PREFIX)
    monkeypatch.setattr(cache, "boot_id", lambda: "the next")
    read = []
    monkeypatch.setattr(cache, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    for _ in range(2):
        end_process()
        assert local_folder(store, PREFIX) == folder
    assert sorted(read) == ["config.json", "empty", "weights"]
    assert len(store.reads()) == len(FILES)


@pytest.mark.parametrize("lost", ["file", "marker"])
def test_what_was_lost_when_the_machine_went_down_is_fetched_again(
    store: RemoteStore, root: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    folder = local_folder(store, PREFIX)
    end_process()
    (path,) = [folder / "deep/weights"] if lost == "file" else root.glob("entries/*.json")
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(cache, "boot_id", lambda: "the next")
    assert content(local_folder(store, PREFIX)) == FILES


def test_what_a_killed_fetch_left_before_the_machine_went_down_is_not_trusted(
    store: RemoteStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = flip(store)
    with pytest.raises(DamagedError):
        local_folder(store, PREFIX)
    (left,) = root.glob("partial/*/config.json")
    left.chmod(0o644)
    left.write_bytes(b"\0\0")
    store.write_bytes(f"{PREFIX}/deep/weights", whole)
    monkeypatch.setattr(cache, "boot_id", lambda: "the next")
    assert content(local_folder(store, PREFIX)) == FILES


# Damage -----------------------------------------------------------------------------------------------------


def flip(store: RemoteStore, path: str = "deep/weights") -> bytes:
    """Change one byte of an object; returns what it was."""
    file = store.root / PREFIX / path
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return whole


def test_a_damaged_object_is_read_twice_and_told(store: RemoteStore, root: Path) -> None:
    whole = flip(store)
    with pytest.raises(DamagedError, match=r"s3://bucket/store/models/key/deep/weights is damaged: its SHA"):
        local_folder(store, PREFIX)
    assert store.reads().count(f"{PREFIX}/deep/weights") == 2
    assert entries(root) == set()
    store.write_bytes(f"{PREFIX}/deep/weights", whole)
    assert content(local_folder(store, PREFIX)) == FILES
    assert store.reads().count(f"{PREFIX}/config.json") == 1  # checked by the first try


def test_a_cut_off_object_is_told_by_its_size(store: RemoteStore) -> None:
    store.write_bytes(f"{PREFIX}/config.json", b"{")
    with pytest.raises(DamagedError, match="1 bytes, 2 expected"):
        local_folder(store, PREFIX)


@pytest.mark.parametrize("damage", ["flipped", "broken off"])
def test_damage_on_the_way_is_mended(store: RemoteStore, damage: str, monkeypatch) -> None:
    whole = store.open_read

    def open_read(key: str):
        if key.endswith("weights") and len([key for key in store.reads() if key.endswith("weights")]) == 0:
            stream = whole(key)
            stream.close()
            return _Stream(b"x" * 3_000_000 if damage == "flipped" else None)
        return whole(key)

    monkeypatch.setattr(store, "open_read", open_read)
    assert content(local_folder(store, PREFIX)) == FILES
    assert store.reads().count(f"{PREFIX}/deep/weights") == 2


class _Stream(contextlib.AbstractContextManager["_Stream"]):
    def __init__(self, body: bytes | None) -> None:
        self.body = body

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, size: int) -> bytes:
        if self.body is None:
            raise ConnectionResetError("connection reset by peer")
        body, self.body = self.body, b""
        return body


# Several processes ------------------------------------------------------------------------------------------


def fetch_and_hold(store: RemoteStore, ready, release) -> None:
    assert content(local_folder(store, PREFIX)) == FILES
    ready.release()
    release.wait(30)


def test_eight_processes_fetch_once(tmp_path: Path) -> None:
    store = put(RemoteStore(tmp_path / "slow", pause_s=0.2))
    ready, release = processes.Semaphore(0), processes.Event()
    workers = [processes.Process(target=fetch_and_hold, args=(store, ready, release)) for _ in range(8)]
    for worker in workers:
        worker.start()
    assert all(ready.acquire(timeout=30) for _ in workers)
    release.set()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert sorted(store.reads()) == sorted(f"{PREFIX}/{path}" for path in FILES)


def test_who_waits_is_told_how_far_the_other_is(tmp_path: Path) -> None:
    store = put(RemoteStore(tmp_path / "slow", pause_s=1.0))
    ready, release = processes.Semaphore(0), processes.Event()
    worker = processes.Process(target=fetch_and_hold, args=(store, ready, release))
    worker.start()
    wait_for(lambda: store.reads())
    told: list[tuple[int, int]] = []
    local_folder(RemoteStore(tmp_path / "slow"), PREFIX, progress=lambda *counts: told.append(counts))
    release.set()
    worker.join(30)
    assert told and {total for _, total in told} == {3_000_002}
    assert len(store.reads()) == len(FILES)


def test_a_fetch_that_was_killed_is_continued_by_another(tmp_path: Path, root: Path) -> None:
    files = {f"shard-{index:02d}": bytes([index]) * 200_000 for index in range(24)}
    store = put(RemoteStore(tmp_path / "slow", pause_s=0.3), files=files)
    worker = processes.Process(target=local_folder, args=(store, PREFIX))
    worker.start()
    wait_for(lambda: len(list(root.glob("partial/*/shard-*"))) >= 4)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    kept = {path.name for path in root.glob("partial/*/shard-*")}
    assert list(root.glob("entries/*")) == []
    before = len(store.reads())
    assert content(local_folder(RemoteStore(tmp_path / "slow"), PREFIX)) == files
    assert {key.split("/")[-1] for key in store.reads()[before:]} == set(files) - kept
    assert list(root.glob("partial/*")) == []


# Space ------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(store: RemoteStore, root: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_BYTES", "3000")
    for name in ("a", "b", "c"):
        local_folder(store, put_sized(store, name, 1000))
    end_process()
    time.sleep(0.02)
    local_folder(store, "models/a")
    end_process()
    local_folder(store, put_sized(store, "d", 1000))
    assert entries(root) == {"models/a", "models/c", "models/d"}
    assert len(list(root.glob("entries/*"))) == 6  # the folder of `b` is gone, too


def test_a_checkpoint_goes_before_older_entries(store: RemoteStore, root: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_BYTES", "2000")
    local_folder(store, put_sized(store, "a", 1000))
    local_folder(store, put_sized(store, "checkpoint", 1000), once=True)
    end_process()
    local_folder(store, put_sized(store, "b", 1000))
    assert entries(root) == {"models/a", "models/b"}


def test_what_a_killed_fetch_left_goes_first() -> None:
    killed, once, old = Evictable(0, 9.0, "k", 0), Evictable(1, 8.0, "c", 5), Evictable(2, 1.0, "o", 5)
    assert sorted([Evictable(2, 2.0, "n", 5), old, once, killed])[:3] == [killed, once, old]


def test_nothing_in_use_is_evicted(store: RemoteStore, root: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_BYTES", "2000")
    prefix = put_sized(store, "a", 1000)
    ready, release = processes.Semaphore(0), processes.Event()

    def use() -> None:
        local_folder(store, prefix)
        ready.release()
        release.wait(30)

    user = processes.Process(target=use)
    user.start()
    assert ready.acquire(timeout=30)
    local_folder(store, put_sized(store, "b", 1000))
    with pytest.raises(CacheError, match=r"no space left in the node cache .* 2 entries in use") as told:
        local_folder(store, put_sized(store, "c", 1000))
    assert "cache.size" in told.value.advice
    assert entries(root) == {"models/a", "models/b"} and list(root.glob("partial/*")) == []
    release.set()
    user.join(30)
    local_folder(store, "models/c")  # the other process ended: its entry may go
    assert entries(root) == {"models/b", "models/c"}


def test_space_that_another_fetch_has_announced_is_not_given_twice(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE_BYTES", "1500")
    slow, quick = RemoteStore(tmp_path / "slow", pause_s=2.0), RemoteStore(tmp_path / "quick")
    prefix = put_sized(slow, "a", 1000)
    worker = processes.Process(target=local_folder, args=(slow, prefix))
    worker.start()
    wait_for(lambda: slow.reads())
    with pytest.raises(CacheError, match="no space left"):
        local_folder(quick, put_sized(quick, "b", 1000))
    worker.join(30)
    assert worker.exitcode == 0


def test_a_disk_that_fills_up_meanwhile_is_told(store: RemoteStore, root: Path, monkeypatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("artifacts.download._Fetch._read", full)
    with pytest.raises(CacheError, match="no space left in the node cache"):
        local_folder(store, PREFIX)
    assert list(root.glob("partial/*")) == []


def test_a_folder_that_can_not_be_written_is_told(store: RemoteStore, root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(CacheError, match=r"cache can't be used: (Not a directory|File exists)"):
        local_folder(store, PREFIX)
