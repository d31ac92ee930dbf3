"""What a profile asks of the image, and what makes another image of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import ImageParams, StageKind
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from launcher.errors import UserError
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages import image
from launcher.stages.code import CodeDigests
from launcher.stages.image_files import LOCKS, image_files
from tests.launcher.plans import fixed_code

DIGEST = "sha256:" + "0" * 64


def cluster(nodes: dict[str, Any] | None = None, **fields: Any) -> KubernetesCluster:
    values = {"backend": "kubernetes", "store": "s3://bucket/prefix"}
    size = {"cpus": 8, "memory": "32Gi"}
    registry = {"registry": "registry.example.com/ml"}
    return KubernetesCluster.model_validate(
        {**values, "nodes": {**size, **(nodes or {})}, "image": {**registry, **fields}}
    )


def test_a_cluster_without_gpus_starts_from_a_plain_base() -> None:
    found = image.params(cluster())
    assert found == ImageParams(repository="registry.example.com/ml", base=image.PLAIN_BASE)


def test_gpus_bring_nvidias_base_and_flash_attention_for_them() -> None:
    found = image.params(cluster({"gpu": "H100-80GB", "gpus_per_node": 8}))
    assert (found.base, found.flash_attention, found.architectures) == (image.CUDA_BASE, True, ["9.0"])
    several = image.params(
        cluster({"gpu": "H100-80GB", "gpus_per_node": 8}, architectures=["10.0", "8.0", "7.5", "9.0"])
    )
    assert several.architectures == ["8.0", "9.0", "10.0"]  # by number; 7.5 can't run it


def test_flash_attention_can_be_left_out_and_is_on_gpus_too_old_for_it() -> None:
    assert (
        image.params(cluster({"gpu": "H100-80GB", "gpus_per_node": 8}, flash_attention=False)).architectures
        == []
    )
    assert not image.params(cluster({"gpu": "V100-32GB", "gpus_per_node": 8})).flash_attention


@pytest.mark.parametrize(
    "profile",
    [
        cluster(flash_attention=True),
        cluster({"gpu": "T4-16GB", "gpus_per_node": 8}, flash_attention=True),
    ],
)
def test_refuses_flash_attention_where_nothing_runs_it(profile: KubernetesCluster) -> None:
    with pytest.raises(UserError, match=r"^image\.flash_attention") as refusal:
        image.params(profile)
    assert refusal.value.problems[0].way_out


def test_llama_cpp_is_an_extra() -> None:
    assert not image.params(cluster()).gguf and image.params(cluster(gguf=True)).gguf
    given = {"builder": "none", "name": f"registry.example.com/ml@{DIGEST}"}
    assert image.params(cluster(gguf=True, **given)) == image.params(cluster(**given))


def test_a_registry_without_a_path_gets_one() -> None:
    assert image.params(cluster(registry="localhost:5000")).repository == "localhost:5000/slipway"


def test_a_given_image_does_not_depend_on_the_code() -> None:
    given = image.params(cluster(builder="none", name=f"registry.example.com/ml@{DIGEST}"))
    keys = {image.plan(given, lambda kind, text=text: text).key for text in "ab"}
    assert len(keys) == 1


def test_reads_what_a_complete_stage_holds(tmp_path: Path) -> None:
    store, stage = LocalStore(tmp_path), image.plan(image.params(cluster()), fixed_code)
    assert stage.output == f"images/{stage.key}" and stage.inputs == {}
    assert image.read_images(store, stage) is None
    ArtifactWriter(store, stage.output).commit(pilot="p", train="t", made_s=1)
    assert image.read_images(store, stage) == image.Images(pilot="p", train="t")


SOURCES = {
    "artifacts/store.py": "X = 1\n",
    "launcher/run.py": "Y = 1\n",
    "launcher/reporting/page.css": "a {}\n",
    "train/loop.py": "Z = 1\n",
    "images/Dockerfile": "FROM scratch\n",
    "requirements/train.lock": "torch==2.15.0\n",
    "requirements/dev.lock": "pytest==9\n",
    "tests/test_loop.py": "A = 1\n",
    "docs/design.md": "words\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digest(root: Path) -> str:
    return CodeDigests(root=root)(StageKind.IMAGE)


@pytest.mark.parametrize(
    ("name", "text", "rebuilds"),
    [
        ("train/loop.py", "Z = 2\n", True),
        ("train/loop.py", "'Docs.'\n# why\nZ = 1\n", False),
        ("train/new.py", "", True),
        ("artifacts/store.py", "X = 2\n", True),
        ("launcher/run.py", "Y = 2\n", True),
        ("launcher/reporting/page.css", "b {}\n", True),
        ("images/Dockerfile", "FROM base\n", True),
        ("requirements/train.lock", "torch==2.16.0\n", True),
        ("requirements/dev.lock", "pytest==10\n", False),
        ("tests/test_loop.py", "A = 2\n", False),
        ("docs/design.md", "other words\n", False),
        ("train/__pycache__/loop.cpython-311.pyc", "bytes", False),
        ("train/.loop.py.swp", "bytes", False),
    ],
)
def test_what_makes_another_image(root: Path, name: str, text: str, rebuilds: bool) -> None:
    before = digest(root)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    assert (digest(root) != before) is rebuilds


def test_what_git_ignores_stays_out(root: Path) -> None:
    (root / ".gitignore").write_text("*.key\n")
    (root / "train/private.key").write_text("secret")
    (root / "train/untracked.py").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "train/loop.py"], cwd=root, check=True)
    found = image_files(root)
    assert "train/loop.py" in found and "train/untracked.py" in found and "train/private.key" not in found
    (root / "train/loop.py").unlink()  # git still lists it
    assert "train/loop.py" not in image_files(root)


def test_every_lock_that_goes_in_is_there() -> None:
    from launcher.stages.code import ROOT

    found = image_files(ROOT)
    assert set(LOCKS) <= set(found) and "images/Dockerfile" in found
    assert not [name for name in found if name.startswith(("tests", "docs")) or name.endswith(".pyc")]
