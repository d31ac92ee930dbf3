"""What is built when, with a builder and a registry that only pretend."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind, StagePlan
from artifacts.local import LocalStore
from launcher.errors import ClusterError
from launcher.images import llama_cpp
from launcher.images.build import build_images
from launcher.images.flash_attention import wheel_of
from launcher.images.listing import list_images
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages import image
from launcher.stages.code import ROOT
from launcher.stages.image import PYTHON
from tests.launcher.images.fake_builder import WHEELS, FakeBuilder
from tests.launcher.images.fake_registry import Registry, serve
from tests.launcher.plans import fixed_code

DIGESTS = {"pilot": "sha256:" + "1" * 64, "train": "sha256:" + "2" * 64}


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return FakeBuilder(folder)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve() as found:
        yield found


@dataclasses.dataclass
class Bench:
    """A profile whose registry is the fake one."""

    folder: Path
    registry: Registry

    def cluster(self, gpu: str | None = None, **fields: Any) -> KubernetesCluster:
        section = {"registry": f"{self.registry.host}/ml", "insecure": True, "builder": "buildah", **fields}
        return KubernetesCluster.model_validate(
            {
                "backend": "kubernetes",
                "store": "s3://bucket/prefix",
                "work": str(self.folder / "work"),
                "image": section,
                "nodes": {"cpus": 8, "memory": "32Gi", "gpu": gpu, "gpus_per_node": 8 if gpu else 0},
            }
        )

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "store")

    def stage(self, cluster: KubernetesCluster) -> StagePlan:
        return image.plan(image.params(cluster), fixed_code)

    def has(self, stage: StagePlan, *targets: str) -> None:
        """The registry now has these targets under their tags."""
        for target in targets:
            self.registry.add("ml", f"{target}-{stage.key[:12]}", DIGESTS[target])

    def build(self, cluster: KubernetesCluster) -> tuple[image.Images, list[str]]:
        said: list[str] = []
        return build_images(self.stage(cluster), cluster, self.store, said.append), said


@pytest.fixture
def bench(tmp_path: Path, registry: Registry) -> Bench:
    return Bench(tmp_path, registry)


def expected(bench: Bench) -> image.Images:
    return image.Images(**{name: f"{bench.registry.host}/ml@{digest}" for name, digest in DIGESTS.items()})


def test_what_the_registry_has_is_not_built(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster()
    bench.has(bench.stage(cluster), "pilot", "train")
    images, _ = bench.build(cluster)
    assert images == expected(bench) == image.read_images(bench.store, bench.stage(cluster))
    assert builder.commands() == []
    (record,) = list_images(bench.store)
    assert (record.train, record.content) == (images.train, image.PLAIN_BASE)


def test_only_what_is_missing_is_built(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster(builder_options=["--network", "host"])
    stage = bench.stage(cluster)
    bench.has(stage, "pilot")
    with pytest.raises(ClusterError, match="does not have it after the push"):  # it only pretends to push
        bench.build(cluster)
    assert builder.targets() == ["train"]
    build, push = (note["words"] for note in builder.commands())
    assert f"BASE={image.PLAIN_BASE}" in build and build[-3:-1] == ["--network", "host"]
    assert push[-2] == f"{bench.registry.host}/ml:train-{stage.key[:12]}"
    assert image.read_images(bench.store, stage) is None


def test_an_image_that_the_registry_lost_is_made_again(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster()
    bench.has(bench.stage(cluster), "pilot", "train")
    bench.build(cluster)
    bench.registry.images.clear()
    with pytest.raises(ClusterError, match="after the push"):
        bench.build(cluster)
    assert builder.targets() == ["pilot", "train"]


def test_a_registry_that_only_the_nodes_reach_is_taken_at_the_stores_word(
    tmp_path: Path, builder: FakeBuilder
) -> None:
    with serve() as registry:
        bench = Bench(tmp_path, registry)
        cluster = bench.cluster()
        bench.has(bench.stage(cluster), "pilot", "train")
        images, _ = bench.build(cluster)
    again, said = bench.build(cluster)
    assert again == images and "can't be reached" in said[0] and builder.commands() == []


def test_a_given_image_is_both(bench: Bench, builder: FakeBuilder) -> None:
    name = f"{bench.registry.host}/own@{DIGESTS['train']}"
    images, _ = bench.build(bench.cluster(builder="none", name=name))
    assert images == image.Images(pilot=name, train=name) and builder.commands() == []


def test_a_failed_build_shows_its_end_and_its_reason(bench: Bench, builder: FakeBuilder) -> None:
    builder.fail("push", "Error: writing blob: initiating layer upload: unauthorized")
    with pytest.raises(ClusterError) as failure:
        bench.build(bench.cluster())
    text = str(failure.value)
    assert "the registry refuses the push; `buildah login`" in text
    assert "| Error: writing blob: initiating layer upload: unauthorized" in text
    (log,) = (bench.folder / "work/images").glob("*.log")
    assert str(log) in text and "STEP 1/2" in log.read_text()


def test_output_streams(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster()
    said: list[str] = []
    with pytest.raises(ClusterError):
        build_images(bench.stage(cluster), cluster, bench.store, said.append)
    assert said[:2] in (["STEP 1/2: FROM base", "a warning"], ["a warning", "STEP 1/2: FROM base"])


def test_a_builder_that_is_not_installed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"podman: it is not installed.*image\.builder"):
        bench.build(bench.cluster(builder="podman"))


def test_flash_attention_is_compiled_once_and_kept(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster("H100-80GB")
    for _ in range(2):
        with pytest.raises(ClusterError, match="after the push"):
            bench.build(cluster)
    assert builder.targets() == ["flash-attention-wheel", *["pilot", "train"] * 2]
    first, *others = [note for note in builder.commands() if note["words"][0] == "build"]
    assert first["wheels"] == [] and "ARCHITECTURES=9.0" in first["words"]
    assert {tuple(note["wheels"]) for note in others} == {("flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl",)}
    prefix = wheel_of(ROOT, PYTHON, ["9.0"]).prefix
    assert bench.store.exists(f"{prefix}/COMPLETE.json")
    with pytest.raises(ClusterError):
        bench.build(bench.cluster("A100-80GB"))
    assert builder.targets().count("flash-attention-wheel") == 2


def test_a_damaged_wheel_is_compiled_again(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster("H100-80GB")
    with pytest.raises(ClusterError):
        bench.build(cluster)
    (wheel,) = (bench.folder / "store").rglob("*.whl")
    wheel.chmod(0o644)
    wheel.write_bytes(b"whale")
    with pytest.raises(ClusterError):
        bench.build(cluster)
    assert builder.targets().count("flash-attention-wheel") == 2
    assert wheel.read_bytes() == b"wheel"


def test_llama_cpp_is_compiled_once_and_kept(bench: Bench, builder: FakeBuilder) -> None:
    cluster = bench.cluster(gguf=True)
    for _ in range(2):
        with pytest.raises(ClusterError, match="after the push"):
            bench.build(cluster)
    assert builder.targets() == ["llama-cpp-wheel", *["pilot", "train"] * 2]
    first, *others = [note for note in builder.commands() if note["words"][0] == "build"]
    assert first["wheels"] == [] and f"BASE={image.PLAIN_BASE}" in first["words"]
    added = ("gguf.lock", *sorted(WHEELS["llama-cpp-wheel"]))
    assert {tuple(note["wheels"]) for note in others} == {added}
    prefix = llama_cpp.wheel_of(ROOT, image.PLAIN_BASE).prefix
    assert bench.store.exists(f"{prefix}/COMPLETE.json")
    with pytest.raises(ClusterError):
        bench.build(bench.cluster(gguf=True, base="docker.io/library/debian:13-slim"))
    assert builder.targets().count("llama-cpp-wheel") == 2


def test_half_of_what_a_build_makes_is_not_kept(
    bench: Bench, builder: FakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp.Wheel, "files", 3)
    with pytest.raises(ClusterError, match="made 2 wheels, 3 expected"):
        bench.build(bench.cluster(gguf=True))


def test_the_stage_is_of_its_kind(bench: Bench) -> None:
    assert bench.stage(bench.cluster()).kind is StageKind.IMAGE
