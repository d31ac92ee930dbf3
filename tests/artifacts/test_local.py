from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.local import LocalStore
from artifacts.store import ObjectInfo, open_store
from tests.artifacts.store_conformance import StoreConformance, in_processes, keys


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "the store")


def files(store: LocalStore) -> list[str]:
    """All that lies in the folder, temporary files too."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


class TestConformance(StoreConformance):
    pass


def test_reading_makes_no_folder_and_writing_leaves_no_temporary_file(store: LocalStore) -> None:
    assert keys(store) == [] and not store.root.exists()
    store.write_bytes("a/b", b"x")
    assert not store.write_bytes("a/b", b"y", if_absent=True)
    with pytest.raises(RuntimeError), store.open_write("a/b") as stream:
        stream.write(b"half")
        assert len(files(store)) == 2
        raise RuntimeError
    assert files(store) == ["b"]
    assert store.local_path("a/b") == store.root / "a/b" and store.local_path("") == store.root


def test_names_of_temporary_files_are_no_keys(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="not a store key"):
        store.write_bytes("a/.tmp-x", b"")


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
