from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.local import LocalStore
from artifacts.store import ObjectInfo, ObjectMissingError, open_store

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def keys(store: LocalStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def files(store: LocalStore) -> list[str]:
    """All that lies in the folder, temporary files too."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


def test_what_is_written_is_read(store: LocalStore, tmp_path: Path) -> None:
    assert keys(store) == [] and not store.root.exists()
    assert store.write_bytes("a/b/c", b"one")
    with store.open_write("a/d") as stream:
        stream.write(b"two")
    (tmp_path / "file").write_bytes(b"three")
    store.put_file("e", tmp_path / "file")
    store.put_file("f", tmp_path / "file", move=True)
    assert [store.read_bytes(key) for key in ("a/b/c", "a/d", "e", "f")] == [
        b"one",
        b"two",
        b"three",
        b"three",
    ]
    with store.open_read("a/d") as stream:
        assert stream.read(2) == b"tw"
    assert not (tmp_path / "file").exists()
    assert (
        store.exists("a/d") and not store.exists("a") and not store.exists("a/d/e") and not store.exists("x")
    )
    assert store.local_path("a/d") == store.root / "a/d" and store.local_path("") == store.root
    assert files(store) == ["c", "d", "e", "f"]


def test_writing_again_replaces(store: LocalStore) -> None:
    store.write_bytes("a", b"old")
    assert store.write_bytes("a", b"new") and store.read_bytes("a") == b"new"
    assert not store.write_bytes("a", b"later", if_absent=True) and store.read_bytes("a") == b"new"
    assert files(store) == ["a"]


@pytest.mark.parametrize("key", ["missing", "a", "a/b/c"])
def test_what_is_not_there_is_named(key: str, store: LocalStore) -> None:
    store.write_bytes("a/b", b"")
    for read in (store.read_bytes, store.open_read):
        with pytest.raises(ObjectMissingError, match=key):
            read(key)
    store.delete(key)
    assert keys(store) == ["a/b"]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/./b", ".tmp-x", "a\0"]
)
def test_no_key_leads_elsewhere(key: str, store: LocalStore) -> None:
    actions: list[Callable[[], object]] = [
        lambda: store.write_bytes(key, b""),
        lambda: store.read_bytes(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ]
    for action in actions:
        with pytest.raises(ValueError, match="not a store key"):
            action()


def test_a_failing_write_leaves_what_was_there(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("a", b"old")
    with pytest.raises(RuntimeError), store.open_write("a") as stream:
        stream.write(b"half")
        raise RuntimeError
    with pytest.raises(FileNotFoundError):
        store.put_file("a", tmp_path / "missing")
    assert store.read_bytes("a") == b"old" and files(store) == ["a"]


def test_unfinished_writes_are_not_seen(store: LocalStore) -> None:
    with store.open_write("a/b") as stream:
        stream.write(b"half")
        assert keys(store) == [] and not store.exists("a/b") and len(files(store)) == 1
    assert keys(store) == ["a/b"]


names = st.text("ab-./0", min_size=1, max_size=6).filter(
    lambda key: all(part not in ("", ".", "..") for part in key.split("/"))
)


@settings(max_examples=40, deadline=None)
@given(wanted=st.sets(names, max_size=8))
def test_lists_in_key_order(wanted: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = LocalStore(tmp_path_factory.mktemp("list"))
    taken: list[str] = []
    for key in sorted(wanted):
        if not any(key.startswith(f"{other}/") for other in taken):  # a name is a file or a folder
            store.write_bytes(key, key.encode())
            taken.append(key)
    assert list(store.list("")) == [ObjectInfo(key, len(key)) for key in sorted(taken)]
    assert keys(store, "a") == [key for key in sorted(taken) if key.startswith("a/")]


def test_deleting_the_last_object_removes_the_folder(store: LocalStore) -> None:
    store.write_bytes("a/b/c", b"")
    store.write_bytes("a/d", b"")
    store.delete("a/b/c")
    assert not (store.root / "a/b").exists() and keys(store) == ["a/d"]
    store.delete("a/d")
    assert store.root.exists() and list(store.root.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from artifacts.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
block = b"x" * 65536
def slowly(stream):
    for _ in range(1000):
        stream.write(block)
    stream.flush()
    print("halfway", flush=True)
    sys.stdin.read()
with store.open_write("a/object") as stream:
    slowly(stream)
"""


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_killed_writer_leaves_no_object(store: LocalStore, before: bytes | None) -> None:
    if before is not None:
        store.write_bytes("a/object", before)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"halfway\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert keys(store) == ([] if before is None else ["a/object"])
    assert store.exists("a/object") == (before is not None)
    if before is not None:
        assert store.read_bytes("a/object") == before
    assert any(name.startswith(".tmp-") for name in files(store))
    store.write_bytes("a/object", b"after")
    assert store.read_bytes("a/object") == b"after"


def in_processes(count: int, work: Callable[[int], bool]) -> list[bool]:
    """What `work(index)` says in each of `count` processes that begin together."""
    barrier = FORK.Barrier(count)

    def child(index: int) -> None:
        barrier.wait()
        os._exit(0 if work(index) else 1)

    processes = [FORK.Process(target=child, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert all(process.exitcode in (0, 1) for process in processes)
    return [process.exitcode == 0 for process in processes]


def test_of_eight_writers_one_wins(store: LocalStore) -> None:
    for key in ("locks/1", "locks/2", "locks/3", "locks/4"):
        write = partial(store.write_bytes, key, if_absent=True)
        won = in_processes(8, lambda index, write=write: write(bytes([index]) * 9))
        assert sum(won) == 1
        assert store.read_bytes(key) == bytes([won.index(True)]) * 9
    assert [name for name in files(store) if name.startswith(".tmp-")] == []


def test_writers_and_deleters_of_one_folder_do_not_trip(store: LocalStore) -> None:
    end = time.monotonic() + 1

    def work(index: int) -> bool:
        while time.monotonic() < end:
            store.write_bytes(f"a/b/{index}", b"x", if_absent=index % 2 == 0)
            list(store.list(""))
            store.delete(f"a/b/{index}")
        return True

    assert in_processes(4, work) == [True] * 4


def test_open_store(tmp_path: Path) -> None:
    odd = tmp_path / "a b#c%20?d"
    store = LocalStore(odd)
    store.write_bytes("key", b"x")
    for name in (store.uri, str(odd), store.uri.replace("file://", "file://localhost")):
        assert open_store(name).read_bytes("key") == b"x"
    for uri in ("s3:///folder", "http://x/y", "file://host/folder", "file:folder"):
        with pytest.raises(ValueError, match=uri):
            open_store(uri)
