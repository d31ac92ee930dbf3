"""What the Dockerfile and its scripts must agree on with the rest."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from launcher.stages import image
from launcher.stages.code import ROOT, locked_versions
from launcher.stages.image_files import FOLDERS, LOCKS

IMAGES = ROOT / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()


def script(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(IMAGES / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_locked_package_is_in_one_group() -> None:
    lock = (ROOT / "requirements/train.lock").read_text()
    parts = script("split-lock").split(lock)
    entries = [
        line for part in parts.values() for line in part.splitlines() if re.match(r"[A-Za-z0-9]", line)
    ]
    assert sorted(entries) == sorted(line for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line))
    assert all(parts.values()) and sum(map(len, parts.values())) == len(lock)
    assert parts["torch"].startswith("torch==") and "--hash=sha256:" in parts["torch"]


def test_every_group_is_installed_in_order() -> None:
    groups = [group for group, _ in script("split-lock").GROUPS]
    assert re.findall(r"COPY --from=tools /locks/train/(\S+)\.lock", DOCKERFILE) == groups
    assert (
        re.findall(r"install /locks/(\S+)\.lock$", DOCKERFILE.split("AS train")[1], re.M)[:-1] == groups[:-1]
    )


def test_cuda_is_that_of_the_locked_torch() -> None:
    locked = locked_versions(ROOT / "requirements/train.lock")["cuda-toolkit"]
    assert image.CUDA_VERSION.rsplit(".", 1)[0] == locked.rsplit(".", 1)[0]
    assert f"nvidia/cuda:{image.CUDA_VERSION}-devel-ubuntu24.04" in DOCKERFILE


def test_nothing_but_what_is_in_the_key_is_copied() -> None:
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    for name in " ".join(sources).split():
        assert name.split("/")[0] in FOLDERS or name in LOCKS or name == "requirements", name


def test_images_run_as_nobody_special_with_a_first_process_that_reaps() -> None:
    for target in ("pilot", "train"):
        stage = re.split(r"^FROM ", DOCKERFILE.split(f" AS {target}\n")[1], flags=re.M)[0]
        assert "USER 1000:1000" in stage and 'ENTRYPOINT ["tini"' in stage


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian here")
def test_packages_that_are_there_are_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text('#!/bin/sh\necho "$@" >> $0.log\n')
    (tmp_path / "apt-get").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([IMAGES / "packages", "dpkg", "coreutils"], env=environment, check=True)
    assert not (tmp_path / "apt-get.log").exists()
