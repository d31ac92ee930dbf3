"""What the tests on a real cluster share: its settings (from the environment), a restricted namespace with
the prerequisites of k8s/, a profile, the images, and `slipway` itself as a process.

Nothing here knows which cluster it is. Variables: KUBECONFIG, SLIPWAY_TEST_STORE (`s3://bucket/prefix`),
SLIPWAY_TEST_S3_ENDPOINT (left out: AWS), AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, SLIPWAY_TEST_REGISTRY,
SLIPWAY_TEST_BASE_IMAGE, SLIPWAY_TEST_BUILDER with SLIPWAY_TEST_BUILDER_OPTIONS, and, for the tests that take
a node away, SLIPWAY_TEST_NODE_DOWN and SLIPWAY_TEST_NODE_UP (commands that take a node's name).
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.store import Store, open_store
from launcher.kube import Kube
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.load import load_cluster

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = ("KUBECONFIG", "SLIPWAY_TEST_STORE", "SLIPWAY_TEST_REGISTRY", "SLIPWAY_TEST_BASE_IMAGE")
S3_SECRET = "slipway-s3"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ROOT / "tests/cluster" in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """The environment, which must name a cluster: these tests are never skipped for want of one."""
    missing = [name for name in REQUIRED if not os.environ.get(name)]
    if missing:
        pytest.exit(f"no cluster to test on: set {', '.join(missing)} (docs/operations.md)", returncode=2)
    return dict(os.environ)


@pytest.fixture(scope="session")
def namespace(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of level `restricted` with k8s/ applied and the store's Secret; gone afterwards."""
    name = f"slipway-test-{uuid.uuid4().hex[:6]}"
    overlay = tmp_path_factory.mktemp("k8s")
    team = yaml.safe_load((ROOT / "k8s/team/kustomization.yaml").read_text())
    (patch,) = team["patches"]
    patch["patch"] = patch["patch"].replace("slipway-nodes-team", f"slipway-nodes-{name}")
    resources = [os.path.relpath(ROOT / "k8s/base", overlay)]
    team.update(namespace=name, resources=resources)
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(team))
    kubectl("apply", "-k", str(overlay))
    kube = Kube.connect(name)
    keys = {key: settings[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": S3_SECRET}, "data": data})
    yield name
    kube.delete("Namespace", name)
    kubectl("delete", "clusterrolebinding", f"slipway-nodes-{name}")


@pytest.fixture(scope="session")
def kube(namespace: str) -> Kube:
    return Kube.connect(namespace)


@pytest.fixture(scope="session")
def profile_values(settings: dict[str, str], namespace: str) -> dict[str, Any]:
    """A profile of this cluster as its file has it: no GPUs, small pods, two nodes at most."""
    small = {"cpus": 0.2, "memory": "512Mi"}
    stage = {"cpus": 1, "memory": "2500Mi"}
    endpoint = settings.get("SLIPWAY_TEST_S3_ENDPOINT")
    return {
        "backend": "kubernetes",
        "namespace": namespace,
        "store": f"{settings['SLIPWAY_TEST_STORE']}/{namespace}",
        "s3": {"secret": S3_SECRET, **({"endpoint": endpoint} if endpoint else {})},
        "image": {
            "registry": settings["SLIPWAY_TEST_REGISTRY"],
            "insecure": settings["SLIPWAY_TEST_REGISTRY"].startswith("localhost"),
            "builder": settings.get("SLIPWAY_TEST_BUILDER", "docker"),
            "builder_options": shlex.split(settings.get("SLIPWAY_TEST_BUILDER_OPTIONS", "")),
            "base": settings["SLIPWAY_TEST_BASE_IMAGE"],
        },
        "nodes": {"cpus": 4, "memory": "16Gi", "shared_memory": "256Mi"},
        "resources": {
            "pilot": small,
            "head": {"cpus": 1, "memory": "3Gi"},
            "worker": {"cpus": 1, "memory": "3Gi"},
            **{name: dict(stage) for name in ("model", "prepare", "merge", "predict")},
        },
        "cache": {"size": "4Gi"},
        "limits": {"grace_s": 30},
    }


@dataclass(frozen=True)
class Place:
    """A folder to run `slipway` in, whose clusters/test.yaml is the profile."""

    folder: Path
    profile: KubernetesCluster
    store: Store

    def slipway(self, *arguments: str, check: bool = True, timeout_s: float = 900) -> str:
        """What the command prints on stdout. Its stderr is part of the message when it fails."""
        result = subprocess.run(
            [sys.executable, "-P", "-m", "launcher.cli", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_CLUSTER": "test"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check:
            assert result.returncode == 0, (
                f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result.stdout

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.slipway(*arguments, "--json", **options))


@pytest.fixture(scope="session")
def make_place(
    profile_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Place]:
    """`make_place(**changes)`: a folder with the profile, some of its sections changed."""

    def make(**changes: Any) -> Place:
        folder = tmp_path_factory.mktemp("place")
        values = {**profile_values, **changes}
        (folder / "clusters").mkdir()
        path = folder / "clusters/test.yaml"
        path.write_text(json.dumps(values, indent=2))  # JSON is YAML, and has no anchors
        profile = load_cluster(str(path)).value
        assert isinstance(profile, KubernetesCluster)
        os.environ.update(profile.store_environment())
        return Place(folder, profile, open_store(profile.store_uri))

    return make


@pytest.fixture(scope="session")
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


@pytest.fixture(scope="session")
def store(place: Place) -> Store:
    return place.store


@pytest.fixture(scope="session")
def images(place: Place) -> Place:
    """The place, once the images are in the registry (built if they are not)."""
    place.slipway("image", "build", timeout_s=1500)
    return place


def kubectl(*arguments: str, input: str | None = None) -> str:
    result = subprocess.run(["kubectl", *arguments], input=input, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
    return result.stdout
