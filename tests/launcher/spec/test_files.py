from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launcher.spec.files import escape_fault, file_fault, folder_fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`job/` with good.jsonl in it and a file outside."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job/good.jsonl").write_text("{}\n")
    (tmp_path / "outside.jsonl").write_text("{}\n")
    return tmp_path / "job"


def why(path: Path, inside: Path | None = None) -> str:
    fault = file_fault(path, inside=inside)
    assert fault is not None
    return f"{fault.why}; {fault.way_out}"


def test_a_good_file(folder: Path) -> None:
    assert file_fault(folder / "good.jsonl", inside=folder) is None
    assert folder_fault(folder, inside=folder) is None


@pytest.mark.timeout(10)
def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "empty").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        assert "is a socket" in why(folder / "socket")
    assert "is a FIFO" in why(folder / "pipe")
    assert "0 bytes" in why(folder / "empty")
    assert "is a device" in why(Path("/dev/null"))
    assert f"is a folder, where a file is needed; name a file in it, as {folder}" in why(folder)
    assert "possible file name" in why(folder / "nul\0")
    assert "is not a folder" in str(folder_fault(folder / "good.jsonl"))


def test_missing_files_and_the_nearest_name(folder: Path) -> None:
    assert why(folder / "god.jsonl") == f"does not exist; did you mean {folder}/good.jsonl?"
    assert why(folder / "nowhere/deep/x") == f"does not exist; there is no folder {folder}/nowhere"
    assert "does not exist" in why(folder / "good.jsonl/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(folder: Path) -> None:
    (folder / "good.jsonl").chmod(0)
    assert "permission denied" in why(folder / "good.jsonl")


def test_symlinks_may_not_lead_out_of_the_job_folder(folder: Path) -> None:
    (folder / "out.jsonl").symlink_to("../outside.jsonl")
    (folder / "sub").symlink_to("..")
    (folder / "in.jsonl").symlink_to("good.jsonl")
    target = folder.parent / "outside.jsonl"
    assert f"leads out of {folder} to {target}" in why(folder / "out.jsonl", folder)
    assert "leads out" in why(folder / "sub/outside.jsonl", folder)
    assert file_fault(folder / "in.jsonl", inside=folder) is None


def test_the_users_own_words_may(folder: Path) -> None:
    assert file_fault(folder / "../outside.jsonl", inside=folder) is None
    assert file_fault(folder.parent / "outside.jsonl", inside=folder) is None
    (folder / "out.jsonl").symlink_to("../outside.jsonl")
    assert file_fault(folder / "out.jsonl") is None  # no job folder given


def test_a_linked_job_folder_is_no_way_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert escape_fault(tmp_path / "link/good.jsonl", tmp_path / "link") is None


def test_dead_and_circular_symlinks(folder: Path) -> None:
    (folder / "dead").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    assert "is a symlink to gone, which does not exist" in why(folder / "dead", folder)
    assert "leads back to itself" in why(folder / "loop", folder)
