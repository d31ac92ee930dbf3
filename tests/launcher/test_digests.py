from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from launcher.digests import ChangedError, Digests

OLD_NS = time.time_ns() - 10**10  # ten seconds ago: past the clock's doubt


def write(path: Path, text: str, mtime_ns: int = OLD_NS) -> None:
    path.write_text(text)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache" / "digests.json"
    write(file, "abc")
    digests = Digests(cache)
    assert digests.sha256(file) == (3, sha256("abc"))
    digests.save()
    monkeypatch.setattr("launcher.digests.hash_file", lambda path: pytest.fail("read again"))
    assert Digests(cache).sha256(file) == (3, sha256("abc"))


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_read_again(tmp_path: Path, change: str) -> None:
    file = tmp_path / "data"
    write(file, "abc")
    digests = Digests()
    digests.sha256(file)
    if change == "size":
        write(file, "abcd")
    elif change == "time":
        write(file, "xyz", OLD_NS + 1)
    else:
        write(tmp_path / "other", "xyz")
        (tmp_path / "other").replace(file)
    assert digests.sha256(file)[1] == sha256(file.read_text())


def test_a_file_that_may_still_change_unseen_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "data"
    write(file, "abc", time.time_ns())
    stamp = file.stat()
    digests = Digests()
    digests.sha256(file)
    file.write_text("xyz")
    os.utime(file, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))  # as if within one tick of the clock
    assert digests.sha256(file)[1] == sha256("xyz")


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    write(file, "abc")

    def grow(path: Path) -> str:
        path.write_text("abcd")
        return "digest"

    with pytest.raises(ChangedError):
        Digests().derived(file, "sha256", grow)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256:/x": 3}', '{"sha256:/x": [1, 2]}'])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, text: str) -> None:
    file, cache = tmp_path / "data", tmp_path / "digests.json"
    write(file, "abc")
    cache.write_text(text)
    digests = Digests(cache)
    assert digests.sha256(file)[1] == sha256("abc")
    digests.save()
    assert len(json.loads(cache.read_text())) == 1


def test_only_save_writes(tmp_path: Path) -> None:
    file = tmp_path / "data"
    write(file, "abc")
    Digests(tmp_path / "work" / "digests.json").sha256(file)
    assert not (tmp_path / "work").exists()
