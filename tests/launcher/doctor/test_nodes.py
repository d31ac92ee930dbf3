from __future__ import annotations

from typing import Any

import pytest

from launcher.doctor.nodes import nodes
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.doctor.standin import StandInKube, named


def node(
    name: str, *, gpus: int = 0, labels: dict[str, str] | None = None, ready: str = "True"
) -> dict[str, Any]:
    allocatable = {"cpu": "95", "memory": "900Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": ready}]}
    found = named("Node", name, spec={}, status=status)
    found["metadata"]["labels"] = labels or {}
    return found


def levels(found: list[dict[str, Any]], cuda_major: int | None = 13, **fields: Any) -> dict[str, str]:
    values = {"cpus": 64.0, "memory": "512Gi", "gpu": "H100-80GB", "gpus_per_node": 8, **fields}
    image = {"registry": "registry.example.com/ml"}
    profile = KubernetesCluster.model_validate(
        {"backend": "kubernetes", "store": "s3://bucket/runs", "image": image, "nodes": values}
    )
    return {check.what: check.level for check in nodes(StandInKube(found), profile, cuda_major)}


H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/cuda.driver.major": "580"}


def test_a_cluster_as_the_profile_says() -> None:
    assert levels([node("a", gpus=8, labels=H100)]) == {"nodes": "ok", "GPUs": "ok", "GPU driver": "ok"}


@pytest.mark.parametrize(
    ("found", "what", "level"),
    [
        ([], "nodes", "warning"),
        ([node("a", gpus=8, labels=H100, ready="False")], "nodes", "warning"),
        ([node("a", gpus=4, labels=H100)], "GPUs", "warning"),
        ([node("a", gpus=8, labels={**H100, "nvidia.com/gpu.product": "Tesla-T4"})], "GPUs", "failure"),
        (
            [node("a", gpus=8, labels={**H100, "nvidia.com/cuda.driver.major": "535"})],
            "GPU driver",
            "failure",
        ),
        ([node("a", gpus=8)], "GPU driver", "warning"),
    ],
)
def test_what_differs_from_the_profile(found: list[dict[str, Any]], what: str, level: str) -> None:
    assert levels(found)[what] == level


def test_nodes_too_small_for_the_profiles_pods() -> None:
    assert levels([node("a", gpus=8, labels=H100)], cpus=128.0)["nodes"] == "warning"


def test_only_selected_nodes_count() -> None:
    found = [node("a", gpus=8, labels=H100), node("b", labels={"pool": "cpu"})]
    assert levels(found, selector={"pool": "cpu"}, gpu=None, gpus_per_node=0) == {"nodes": "ok"}
    assert levels(found, selector={"pool": "gone"})["nodes"] == "warning"
