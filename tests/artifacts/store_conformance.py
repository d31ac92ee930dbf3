"""What every store must do, as tests: subclass `StoreConformance` and give it a fixture `store`, empty."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from artifacts.manifest import ArtifactWriter, verify
from artifacts.store import ObjectInfo, ObjectMissingError, Store, open_store

ROOT = Path(__file__).resolve().parents[2]
FORK = multiprocessing.get_context("fork")
LARGE = hashlib.shake_256(b"large").digest(23_000_000)  # several parts, the last of them odd

#: Writes for ever; says so once far more than one part is on its way.
WRITER = """
import sys
from artifacts.store import open_store
with open_store(sys.argv[1]).open_write("a/object") as stream:
    for _ in range(40):
        stream.write(bytes(1024 * 1024))
    print("halfway", flush=True)
    sys.stdin.read()
"""


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def in_processes(count: int, work: Callable[[int], bool]) -> list[bool]:
    """What `work(index)` says in each of `count` forked processes that begin together."""
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


class StoreConformance:
    def test_what_is_written_is_read(self, store: Store, tmp_path: Path) -> None:
        assert keys(store) == []
        assert store.write_bytes("a/b/c", b"one")
        with store.open_write("a/d") as stream:
            stream.write(b"tw")
            stream.write(memoryview(b"o"))
        (tmp_path / "file").write_bytes(b"three")
        store.put_file("e", tmp_path / "file")
        store.put_file("f", tmp_path / "file", move=True)
        contents = [store.read_bytes(key) for key in ("a/b/c", "a/d", "e", "f")]
        assert contents == [b"one", b"two", b"three", b"three"]
        with store.open_read("a/d") as stream:
            assert stream.read(2) == b"tw" and stream.read() == b"o" and stream.read() == b""
        assert not (tmp_path / "file").exists()
        assert [store.exists(key) for key in ("a/d", "a", "a/d/e", "x")] == [True, False, False, False]
        assert list(store.list("a")) == [ObjectInfo("a/b/c", 3), ObjectInfo("a/d", 3)]
        assert open_store(store.uri).read_bytes("a/d") == b"two"

    def test_nothing_is_an_object_too(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        store.write_bytes("a", b"")
        store.put_file("b", tmp_path / "file")
        with store.open_write("c"):
            pass
        for key in "abc":
            assert store.exists(key) and store.read_bytes(key) == b""
            with store.open_read(key) as stream:
                assert stream.read() == b""

    def test_large_objects_are_read_as_they_were_written(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(LARGE)
        told: list[int] = []
        store.put_file("file", tmp_path / "file", sent=told.append)
        assert sum(told) == len(LARGE)
        with store.open_write("stream") as stream:
            for start in range(0, len(LARGE), 1_234_567):
                stream.write(LARGE[start : start + 1_234_567])
        for key in ("file", "stream"):
            assert store.read_bytes(key) == LARGE
            with store.open_read(key) as stream:
                assert stream.read(10) == LARGE[:10]
                assert stream.read(9_000_000) == LARGE[10:9_000_010]
                assert stream.read() == LARGE[9_000_010:]

    def test_lines_are_read_one_by_one(self, store: Store) -> None:
        lines = [b"line %d\n" % number for number in range(1000)]
        store.write_bytes("lines", b"".join(lines))
        with store.open_read("lines") as stream:
            assert stream.readline() == lines[0] and list(stream) == lines[1:]

    def test_writing_again_replaces(self, store: Store) -> None:
        store.write_bytes("a", b"old")
        assert store.write_bytes("a", b"new") and store.read_bytes("a") == b"new"
        assert not store.write_bytes("a", b"later", if_absent=True) and store.read_bytes("a") == b"new"
        assert store.write_bytes("b", b"first", if_absent=True) and store.read_bytes("b") == b"first"

    @pytest.mark.parametrize("key", ["missing", "a", "a/b/c"])
    def test_what_is_not_there_is_named(self, key: str, store: Store) -> None:
        store.write_bytes("a/b", b"")
        for read in (store.read_bytes, store.open_read):
            with pytest.raises(ObjectMissingError, match=key):
                read(key)
        assert not store.holds(key, "0" * 64)
        store.delete(key)
        store.delete_many([key, "missing"])
        assert keys(store) == ["a/b"]

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/./b", "a\0"])
    def test_no_key_leads_elsewhere(self, key: str, store: Store) -> None:
        actions: list[Callable[[], object]] = [
            lambda: store.write_bytes(key, b""),
            lambda: store.read_bytes(key),
            lambda: store.exists(key),
            lambda: store.delete(key),
            lambda: store.delete_many([key]),
        ]
        for action in actions:
            with pytest.raises(ValueError, match="not a store key"):
                action()

    @pytest.mark.parametrize("written", [b"half", LARGE], ids=["small", "large"])
    def test_a_failing_write_leaves_what_was_there(
        self, written: bytes, store: Store, tmp_path: Path
    ) -> None:
        store.write_bytes("a", b"old")
        with pytest.raises(RuntimeError), store.open_write("a") as stream:
            stream.write(written)
            raise RuntimeError
        with pytest.raises(FileNotFoundError):
            store.put_file("a", tmp_path / "missing")
        assert store.read_bytes("a") == b"old" and keys(store) == ["a"]
        assert list(store.unfinished(-60)) == []

    def test_unfinished_writes_are_not_seen(self, store: Store) -> None:
        with store.open_write("a/b") as stream:
            stream.write(LARGE)
            assert keys(store) == [] and not store.exists("a/b")
        assert keys(store) == ["a/b"]

    def test_lists_in_key_order(self, store: Store) -> None:
        wanted = ["a-b", "a.c", "a/b", "a/é ü/c d+%20&<x>='\"", "a0", "b/c/d", "b/c0", "ab"]
        for key in wanted:
            store.write_bytes(key, key.encode())
        assert list(store.list("")) == [ObjectInfo(key, len(key.encode())) for key in sorted(wanted)]
        assert keys(store, "a") == ["a/b", "a/é ü/c d+%20&<x>='\""]
        assert [store.read_bytes(key).decode() for key in wanted] == wanted

    def test_more_objects_than_one_answer_lists(self, store: Store) -> None:
        wanted = [f"many/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.write_bytes(key, b""), wanted))
        assert keys(store, "many") == wanted
        store.delete_many(wanted[1:])
        assert keys(store) == wanted[:1]

    @pytest.mark.parametrize("before", [None, b"before"])
    def test_a_killed_writer_leaves_no_object(self, store: Store, before: bytes | None) -> None:
        if before is not None:
            store.write_bytes("a/object", before)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"halfway\n"
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert keys(store) == ([] if before is None else ["a/object"])
        if before is not None:
            assert store.read_bytes("a/object") == before
        assert list(store.unfinished(3600)) == []
        (left,) = store.unfinished(-60)
        assert left.name.startswith("a/") and left.size_bytes > 1_000_000
        store.write_bytes("a/object", b"after")
        store.discard(left)
        assert list(store.unfinished(-60)) == [] and store.read_bytes("a/object") == b"after"

    def test_of_eight_processes_one_wins(self, store: Store) -> None:
        for key in ("locks/1", "locks/2"):
            write = partial(store.write_bytes, key, if_absent=True)
            won = in_processes(8, lambda index, write=write: write(bytes([index]) * 9))
            assert sum(won) == 1
            assert store.read_bytes(key) == bytes([won.index(True)]) * 9

    def test_of_many_threads_one_wins(self, store: Store) -> None:
        with ThreadPoolExecutor(32) as pool:
            won = list(
                pool.map(lambda index: store.write_bytes("l", bytes([index]), if_absent=True), range(64))
            )
        assert sum(won) == 1 and store.read_bytes("l") == bytes([won.index(True)])

    def test_a_forked_child_goes_its_own_way(self, store: Store) -> None:
        """Parent and children read streams that were open before the fork's time, and new ones, at once."""
        store.write_bytes("large", LARGE)

        def work(index: int) -> bool:
            with store.open_read("large") as stream, store.open_write(f"copy-{index}") as copy:
                while block := stream.read(1_000_000):
                    copy.write(block)
            return store.read_bytes(f"copy-{index}") == LARGE

        with ThreadPoolExecutor(1) as pool:
            own = pool.submit(work, 9)
            assert in_processes(3, work) == [True] * 3 and own.result()

    def test_a_folder_becomes_an_artifact(self, store: Store, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        for number in range(50):
            path = folder / f"{number % 3}/{number}.bin"
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(os.urandom(number * 1000))
        (folder / "large").write_bytes(LARGE)
        told: list[int] = []
        for _ in range(2):  # the second goes over what the first has left
            writer = ArtifactWriter(store, "data/key")
            writer.add_folder(folder, sent=told.append)
            manifest = writer.commit()
            assert len(manifest.files) == 51 and verify(store, "data/key") == []
        assert sum(told) == 2 * manifest.size_bytes == 2 * sum(entry.size_bytes for entry in manifest.files)

    def test_a_file_that_goes_missing_fails_the_whole_folder(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(b"x")
        writer = ArtifactWriter(store, "data/key")
        with pytest.raises(FileNotFoundError):
            writer.add_files({"there": tmp_path / "there", "gone": tmp_path / "gone"})
        assert writer.commit().files == []
