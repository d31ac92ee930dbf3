from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import (
    MARKER,
    ArtifactWriter,
    FileEntry,
    Manifest,
    hash_file,
    is_complete,
    local_folder,
    read_marker,
    verify,
    write_marker,
)
from artifacts.store import ObjectMissingError

PREFIX = "train/key/final"
CONTENTS = {"a.bin": b"first" * 100, "empty": b"", "sub/b.bin": b"second" * 50}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def make(store: LocalStore) -> Manifest:
    writer = ArtifactWriter(store, PREFIX)
    for path, content in CONTENTS.items():
        writer.write_bytes(path, content)
    return writer.commit(step=3)


def test_there_is_no_artifact_before_the_marker(store: LocalStore) -> None:
    writer = ArtifactWriter(store, PREFIX)
    with writer.open("a") as stream:
        stream.write(b"x")
    assert not is_complete(store, PREFIX) and read_marker(store, PREFIX) is None
    assert verify(store, PREFIX) == [f"{MARKER}: missing or unreadable"]
    with pytest.raises(ObjectMissingError):
        local_folder(store, PREFIX)
    writer.commit()
    assert is_complete(store, PREFIX) and verify(store, PREFIX) == []


def test_every_way_to_write_lists_size_and_digest(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/x").write_bytes(b"deep")
    (tmp_path / "one").write_bytes(b"one")
    writer = ArtifactWriter(store, PREFIX)
    with writer.open("streamed") as stream:
        stream.write(b"in ")
        stream.write(memoryview(b"parts"))
    writer.write_bytes("bytes", b"bytes")
    writer.add_file("file", tmp_path / "one", move=True)
    writer.add_folder(folder)
    manifest = writer.commit(records=4)
    expected = {"bytes": b"bytes", "deep/x": b"deep", "file": b"one", "streamed": b"in parts"}
    assert manifest.files == [
        FileEntry(path, len(content), hashlib.sha256(content).hexdigest())
        for path, content in expected.items()
    ]
    assert read_marker(store, PREFIX) == manifest and manifest.size_bytes == 20
    assert manifest.facts == {"records": 4}
    assert local_folder(store, PREFIX) == store.root / PREFIX
    assert verify(store, PREFIX) == []


def test_a_failed_file_is_not_listed(store: LocalStore) -> None:
    writer = ArtifactWriter(store, PREFIX)
    with pytest.raises(RuntimeError), writer.open("a") as stream:
        stream.write(b"x")
        raise RuntimeError
    assert writer.commit().files == []


def test_leftovers_of_an_earlier_attempt_do_no_harm(store: LocalStore) -> None:
    store.write_bytes(f"{PREFIX}/old.bin", b"old")
    make(store)
    assert verify(store, PREFIX) == []


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(content[:-1])
    elif kind == "longer":
        path.write_bytes(content + b"\0")
    else:
        place = {"first bit": 0, "middle bit": len(content) // 2, "last bit": len(content) - 1}[kind]
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


KINDS = ["deleted", "longer", "truncated", "first bit", "middle bit", "last bit"]
DAMAGE = [(name, kind) for name, content in CONTENTS.items() for kind in (KINDS if content else KINDS[:2])]


@pytest.mark.parametrize(("name", "kind"), DAMAGE)
def test_verify_names_the_damaged_file(name: str, kind: str, store: LocalStore) -> None:
    make(store)
    damage(store.root / PREFIX / name, kind)
    (problem,) = verify(store, PREFIX)
    assert problem.startswith(f"{name}: ")


def test_no_flipped_bit_of_the_marker_goes_unseen(store: LocalStore) -> None:
    make(store)
    path = store.root / PREFIX / MARKER
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 16):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            assert not is_complete(store, PREFIX), (place, bit)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not is_complete(store, PREFIX), length


@pytest.mark.parametrize("text", ["null", "[]", "{}", '"x"', "[" * 100_000, '{"files": null}', "\xff", "{"])
def test_what_is_no_marker_is_none(text: str, store: LocalStore) -> None:
    store.write_bytes(f"{PREFIX}/{MARKER}", text.encode("latin-1"))
    assert read_marker(store, PREFIX) is None and not is_complete(store, PREFIX)


def test_facts_of_any_json_value_are_kept(store: LocalStore) -> None:
    facts = {"steps": {2: "b", 10: "a"}, "names": ("x", "é"), "share": 0.1, "none": None}
    write_marker(store, PREFIX, Manifest(files=[], facts=facts))
    marker = read_marker(store, PREFIX)
    assert marker is not None and marker.facts == json.loads(json.dumps(facts))


def test_an_artifact_in_place_is_read_where_it_lies(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "my model#1"
    folder.mkdir()
    (folder / "weights").write_bytes(b"weights")
    size_bytes, sha256 = hash_file(folder / "weights")
    manifest = Manifest(files=[FileEntry("weights", size_bytes, sha256)], location=folder.as_uri())
    write_marker(store, "models/key", manifest)
    assert local_folder(store, "models/key") == folder
    assert verify(store, "models/key") == []
    (folder / "weights").write_bytes(b"Weights")
    assert verify(store, "models/key") == ["weights: its SHA-256 differs from the manifest's"]
    (folder / "weights").unlink()
    assert verify(store, "models/key") == ["weights: missing"]


def test_a_path_that_is_no_key_is_a_problem_not_a_crash(store: LocalStore) -> None:
    write_marker(store, PREFIX, Manifest(files=[FileEntry("../x", 1, "0" * 64)]))
    (problem,) = verify(store, PREFIX)
    assert problem.startswith("../x: can't be read")
