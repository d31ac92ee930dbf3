"""A publication in a bucket, here in a folder. tests/cluster/test_publish.py has a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.manifest import read_marker, verify
from launcher.publishing import bucket
from launcher.publishing.products import PublishedFile
from tests.artifacts.remote import RemoteStore


def files(folder: Path, **contents: bytes) -> list[PublishedFile]:
    folder.mkdir(exist_ok=True)
    made = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        told = PublishedFile.of_bytes(f"gguf/{name}", content)
        made.append(
            PublishedFile(
                path=told.path, size_bytes=told.size_bytes, sha256=told.sha256, source=folder / name
            )
        )
    return [*made, PublishedFile.of_bytes("README.md", b"# bot")]


def quiet(done: int, total: int) -> None: ...


def test_a_publication_is_an_artifact_and_is_made_once(tmp_path: Path) -> None:
    store, seen = RemoteStore(tmp_path / "bucket"), []
    wanted = files(tmp_path / "a", x=b"1" * 100, y=b"2")
    digest = bucket.put(store, "bot", wanted, lambda *told: seen.append(told))
    manifest = read_marker(store, "bot")
    assert manifest is not None and verify(store, "bot") == [] and manifest.content_digest == digest
    assert seen[-1] == (106, 106)
    puts = store.puts()
    assert bucket.put(store, "bot", wanted, quiet) == digest
    assert store.puts() == puts


def test_a_newer_one_replaces_it_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "bucket")
    bucket.put(store, "bot", files(tmp_path / "a", x=b"1", y=b"2"), quiet)
    store.write_bytes("bot/mine.txt", b"mine")
    bucket.put(store, "bot", files(tmp_path / "b", x=b"3", z=b"4"), quiet)
    assert verify(store, "bot") == []
    assert sorted(info.key for info in store.list("bot")) == [
        "bot/COMPLETE.json",
        "bot/README.md",
        "bot/gguf/x",
        "bot/gguf/z",
        "bot/mine.txt",
    ]


def test_while_it_is_replaced_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteStore(tmp_path / "bucket")
    bucket.put(store, "bot", files(tmp_path / "a", x=b"1"), quiet)
    newer = files(tmp_path / "b", x=b"3", y=b"4")

    def broken(key: str, data: bytes, *, if_absent: bool = False) -> bool:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(store, "write_bytes", broken)
        bucket.put(store, "bot", newer, quiet)
    assert read_marker(store, "bot") is None
    before = store.puts()
    bucket.put(store, "bot", newer, quiet)
    assert store.puts() == before  # the files had arrived
    assert verify(store, "bot") == []
