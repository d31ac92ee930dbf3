"""Images for real: a builder, a registry, a store and pods that run what was built.

Most tests build a few files on the base image; the real images are built once for all cluster tests.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StagePlan
from artifacts.manifest import read_marker
from launcher.errors import ClusterError
from launcher.images.build import build_images
from launcher.images.flash_attention import wheel_of
from launcher.images.registry import Reference, find_digest
from launcher.kube import Kube
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages import image
from launcher.stages.code import ROOT, CodeDigests
from launcher.stages.image import PYTHON, Images, read_images
from tests.cluster.conftest import Place

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS pilot
COPY train /opt/slipway/train

FROM scratch AS flash-attention-wheel
COPY images/stand-in.whl /flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl

FROM pilot AS train
COPY images/wheels /wheels
RUN %s
USER 1000:1000
"""


@dataclasses.dataclass
class Checkout:
    """A small one, of which images are built."""

    root: Path
    place: Place

    def write(self, code: str = "X = 1\n", command: str = "true") -> None:
        for name, text in {
            "images/Dockerfile": DOCKERFILE % command,
            "images/stand-in.whl": "a wheel",
            "images/wheels/.keep": "",
            "train/loop.py": code,
        }.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    def build(self, cluster: KubernetesCluster | None = None) -> tuple[Images, list[str]]:
        said: list[str] = []
        cluster = cluster or self.place.profile
        return build_images(self.stage(cluster), cluster, self.place.store, said.append, self.root), said

    def stage(self, cluster: KubernetesCluster) -> StagePlan:
        return image.plan(image.params(cluster), CodeDigests(root=self.root))


@pytest.fixture
def checkout(
    tmp_path: Path, make_place: Callable[..., Place], profile_values: dict[str, Any], namespace: str
) -> Checkout:
    own = profile_values["image"] | {"registry": f"{profile_values['image']['registry']}/{namespace}"}
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    checkout = Checkout(tmp_path, make_place(image=own))
    checkout.write()
    return checkout


def built(said: list[str]) -> list[str]:
    return [line for line in said if "built and pushed in" in line]


def test_builds_once_and_again_only_for_other_code(checkout: Checkout) -> None:
    first, said = checkout.build()
    assert len(built(said)) == 2
    assert read_images(checkout.place.store, checkout.stage(checkout.place.profile)) == first
    insecure = checkout.place.profile.image.insecure
    for reference in (first.pilot, first.train):
        assert find_digest(reference, insecure=insecure) == reference.partition("@")[2]
    assert checkout.build() == (first, [])
    checkout.write(code="# only a remark\nX = 1\n")
    assert checkout.build() == (first, [])
    checkout.write(code="X = 2\n")
    second, said = checkout.build()
    assert second != first and len(built(said)) == 2


def test_two_builds_of_one_thing_have_the_same_layers(checkout: Checkout) -> None:
    """Whoever built them, and when: what a registry or a node has is then not sent again."""
    values = checkout.place.profile.model_dump(mode="json")
    found = []
    for name in ("one", "two"):
        for path in checkout.root.rglob("*"):
            path.touch()
        own = {
            "registry": f"{values['image']['registry']}/{name}",
            "builder_options": [*values["image"]["builder_options"], "--no-cache"],
        }
        cluster = KubernetesCluster.model_validate({**values, "image": values["image"] | own})
        found.append(layers(checkout.build(cluster)[0].train, insecure=cluster.image.insecure))
    assert found[0] == found[1] and len(found[0]) > 2


def layers(reference: str, *, insecure: bool) -> list[str]:
    """Digests of an image's layers, from a registry that gives them to everybody."""
    wanted = Reference.parse(reference)
    url = f"http{'' if insecure else 's'}://{wanted.host}/v2/{wanted.path}/manifests/{wanted.version}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=30) as answer:
        return [layer["digest"] for layer in json.load(answer)["layers"]]


def test_a_wheel_is_made_once_and_kept_in_the_store(checkout: Checkout) -> None:
    values = checkout.place.profile.model_dump(mode="json")
    values["nodes"] |= {"gpu": "H100-80GB", "gpus_per_node": 8}
    cluster = KubernetesCluster.model_validate(values)
    checkout.write(command="ls /wheels/flash_attn-*.whl")
    _, said = checkout.build(cluster)
    assert len([line for line in said if line.startswith("compiling flash-attention")]) == 1
    manifest = read_marker(checkout.place.store, wheel_of(checkout.root, PYTHON, ["9.0"]).prefix)
    assert manifest is not None and manifest.files[0].size_bytes == len("a wheel")
    checkout.write(code="X = 3\n", command="ls /wheels/flash_attn-*.whl")
    _, said = checkout.build(cluster)
    assert len(built(said)) == 2 and not [line for line in said if line.startswith("compiling")]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo 'Hash mismatch for six' && false", "a package is not the one that is locked"),
        ("echo strange && exit 7", "ended with exit code"),
    ],
)
def test_a_failed_build_says_why(checkout: Checkout, command: str, why: str) -> None:
    checkout.write(command=command)
    with pytest.raises(ClusterError, match=why) as failure:
        checkout.build()
    assert "\n  | " in str(failure.value) and "log: " in str(failure.value)
    assert read_images(checkout.place.store, checkout.stage(checkout.place.profile)) is None


def test_a_base_image_that_is_not_there(checkout: Checkout) -> None:
    values = checkout.place.profile.model_dump(mode="json")
    values["image"]["base"] = values["image"]["registry"] + "/none:0"
    with pytest.raises(ClusterError, match=r"the base image is not there; check image\.base"):
        checkout.build(KubernetesCluster.model_validate(values))


def test_a_registry_that_is_not_there(checkout: Checkout) -> None:
    values = checkout.place.profile.model_dump(mode="json")
    values["image"]["registry"] = "localhost:1/ml"
    with pytest.raises(ClusterError, match=r"can't be reached.*image\.registry"):
        checkout.build(KubernetesCluster.model_validate(values))


def test_the_command_builds_and_lists(images: Place) -> None:
    built_images = images.json("image", "build")
    listed = images.json("image", "ls")
    assert built_images["key"] in {record["key"] for record in listed}
    assert "@sha256:" in built_images["pilot"] and built_images["train"] in images.slipway("image", "ls")


OPS = """
import os, time
started = time.perf_counter()
import torch
print("torch", round(time.perf_counter() - started, 2))
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.ops.op_builder import CPUAdamBuilder, PinMemoryBuilder
assert "/opt/venv/" in CPUAdamBuilder().load().__file__, "compiled in the pod"
assert "/opt/venv/" in PinMemoryBuilder().load().__file__, "compiled in the pod"
ours, theirs = (torch.nn.Parameter(torch.ones(1000)) for _ in range(2))
optimizers = DeepSpeedCPUAdam([ours], lr=0.01), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0)
for weights, optimizer in zip((ours, theirs), optimizers):
    weights.grad = torch.linspace(-1, 1, 1000)
    optimizer.step()
assert torch.allclose(ours, theirs, atol=1e-6)
assert not os.access("/opt/venv", os.W_OK) and os.getuid() == 1000
import ctypes.util, shutil
assert shutil.which("gcc") and shutil.which("g++")
"""


def test_what_is_built_runs_where_nothing_can_be_written(images: Place, kube: Kube) -> None:
    """Non-root, on a read-only root: modules come with bytecode, DeepSpeed's ops are compiled already."""
    references = images.json("image", "build")
    run_pod(kube, "pilot", references["pilot"], ["python", "-m", "launcher.cli", "--help"])
    run_pod(kube, "train", references["train"], ["python", "-c", OPS])
    said = kube.pod_log("image-train")
    assert said.startswith("torch ") or "torch " in said


def test_a_stop_reaches_the_program(images: Place, kube: Kube) -> None:
    """The first process of the container passes SIGTERM on, which a first process itself would not get."""
    reference = images.json("image", "build")["pilot"]
    pod = start_pod(kube, "stop", reference, ["sh", "-c", "sleep 600"])
    wait_for(lambda: phase(kube, pod) == "Running", 120)
    started_s = time.monotonic()
    kube.delete("Pod", pod, grace_s=60)
    wait_for(lambda: kube.get("Pod", pod) is None, 60)
    assert time.monotonic() - started_s < 30


def run_pod(kube: Kube, name: str, reference: str, command: list[str]) -> None:
    pod = start_pod(kube, name, reference, command)
    wait_for(lambda: phase(kube, pod) in ("Succeeded", "Failed"), 600)
    assert phase(kube, pod) == "Succeeded", kube.pod_log(pod)


def start_pod(kube: Kube, name: str, reference: str, command: list[str]) -> str:
    pod = f"image-{name}"
    size = {"cpu": "250m", "memory": "1Gi"}
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "main",
                        "image": reference,
                        "args": command,
                        "resources": {"requests": size, "limits": size},
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        }
    )
    return pod


def phase(kube: Kube, pod: str) -> str:
    return str((kube.get("Pod", pod) or {}).get("status", {}).get("phase"))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it took too long"
        time.sleep(0.5)
