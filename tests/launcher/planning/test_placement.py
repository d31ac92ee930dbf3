from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.networks import EFA_ADAPTERS, NETWORKS
from launcher.planning.placement import Placement, nodes_needed, place, pods_per_node, worker_pod
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.nodes import Nodes
from tests.launcher.plans import GIB, assert_golden

H100_NODES: dict[str, Any] = {"gpu": "H100-80GB", "gpus_per_node": 8, "cpus": 190, "memory": "1900Gi"}
EFA = {**H100_NODES, "network": "efa", "network_devices": 32}
CPU_NODES: dict[str, Any] = {"cpus": 32, "memory": "128Gi"}


def cluster(nodes: dict[str, Any], **fields: Any) -> KubernetesCluster:
    values = {"backend": "kubernetes", "store": "s3://bucket/runs", "image": {"registry": "r.example.com/ml"}}
    return KubernetesCluster.model_validate({**values, "nodes": nodes, **fields})


def shown(workers: int, profile: KubernetesCluster) -> dict[str, Any]:
    placement = place(workers, profile)
    pod = worker_pod(placement, profile)
    return {
        "workers": workers,
        "pods": placement.pods,
        "workers of a pod": placement.workers_per_pod,
        "pods of a node": pods_per_node(placement, profile),
        "nodes": nodes_needed(placement, profile),
        "pod": {
            "gpus": pod.gpus,
            "cpus": pod.cpus,
            "memory": f"{pod.memory_bytes / GIB:.1f} GiB",
            "shared memory": f"{pod.shared_memory_bytes / GIB:.1f} GiB",
            "devices": dict(pod.devices),
        },
    }


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("gpus", cluster(H100_NODES)),
        ("efa", cluster(EFA)),
        ("cpus", cluster(CPU_NODES)),
        ("two-cpu-nodes", cluster({**CPU_NODES, "count": 2})),
    ],
)
def test_golden_placements(name: str, profile: KubernetesCluster) -> None:
    """The number of workers is all that changes."""
    found = [shown(workers, profile) for workers in (1, 2, 8, 12, 16, 17, 64)]
    assert_golden(f"placement/{name}.yaml", yaml.safe_dump(found, sort_keys=False))


@given(
    workers=st.integers(1, 4096),
    gpus=st.integers(0, 16),
    count=st.none() | st.integers(1, 512),
    devices=st.none() | st.integers(1, 64),
)
def test_every_worker_has_its_place(workers: int, gpus: int, count: int | None, devices: int | None) -> None:
    gpu = {"gpu": "H100-80GB", "gpus_per_node": gpus} if gpus else {}
    network = {"network": "rdma", "network_devices": devices} if gpus and devices else {}
    profile = cluster({**CPU_NODES, **gpu, **network, "count": count})
    placement = place(workers, profile)
    assert placement.pods * placement.workers_per_pod == workers
    assert placement.workers_per_pod <= max(1, gpus)
    each, pod = pods_per_node(placement, profile), worker_pod(placement, profile)
    assert pod.gpus == (placement.workers_per_pod if gpus else 0)
    nodes = nodes_needed(placement, profile)
    if nodes == 0:  # so many on so few nodes that nothing is left for each
        assert pod.cpus < 0.1 or pod.usable_bytes <= 0
    else:
        assert nodes * each >= placement.pods > (nodes - 1) * each
        assert gpus or count is None or nodes <= count
    # All pods of a node, with head and pilot beside them, fit on it.
    resources = profile.resources
    assert each * pod.gpus <= max(gpus, 0)
    assert each * pod.cpus + resources.head.cpus + resources.pilot.cpus <= profile.nodes.cpus + 1e-6
    others = resources.head.memory_bytes + resources.pilot.memory_bytes
    assert each * pod.memory_bytes + others <= profile.nodes.memory_bytes
    assert pod.shared_memory_bytes <= pod.memory_bytes
    if network and each * placement.workers_per_pod <= gpus and devices and devices >= each:
        assert each * int(pod.devices["rdma/hca_shared_devices_a"]) <= devices


def test_no_larger_divisor_would_do() -> None:
    for workers in range(1, 200):
        placement = place(workers, cluster(H100_NODES))
        larger = [n for n in range(placement.workers_per_pod + 1, 9) if workers % n == 0]
        assert not larger


def test_given_resources_of_a_worker_bound_what_a_node_holds() -> None:
    worker = {"cpus": 10, "memory": "30Gi"}
    profile = cluster({**CPU_NODES, "count": 2}, resources={"worker": worker})
    assert pods_per_node(Placement(8, 1), profile) == 3  # by cores; two nodes would need to hold four each
    assert nodes_needed(Placement(8, 1), profile) == 3
    pod = worker_pod(Placement(8, 1), profile)
    assert (pod.cpus, pod.memory_bytes) == (10, 30 * GIB)


def test_a_node_that_head_and_pilot_fill_holds_no_worker() -> None:
    profile = cluster(
        {"cpus": 2, "memory": "7Gi"},
        resources={"merge": {"cpus": 1, "memory": "4Gi"}, "predict": {"cpus": 1, "memory": "4Gi"}},
    )
    assert nodes_needed(Placement(1, 1), profile) == 0


@pytest.mark.parametrize(
    ("given", "expected_gib"), [(None, 16), ("64Gi", 64), ("512Mi", 0.5)], ids=["left out", "more", "less"]
)
def test_shared_memory_is_part_of_the_pods(given: str | None, expected_gib: float) -> None:
    pod = worker_pod(Placement(1, 8), cluster({**H100_NODES, "shared_memory": given}))
    assert pod.shared_memory_bytes == expected_gib * GIB
    assert pod.usable_bytes == pod.memory_bytes - pod.shared_memory_bytes


def test_shared_memory_left_out_is_an_eighth_of_a_small_pod() -> None:
    pod = worker_pod(Placement(2, 1), cluster({"cpus": 8, "memory": "16Gi"}))
    assert 0 <= pod.shared_memory_bytes - pod.memory_bytes // 8 + 2**20 <= 2**20


def test_a_preset_sets_variables_and_the_profile_wins() -> None:
    pod = worker_pod(
        Placement(1, 8), cluster({**EFA, "nccl": {"FI_EFA_FORK_SAFE": "0", "NCCL_DEBUG": "WARN"}})
    )
    assert pod.variables == {
        "FI_PROVIDER": "efa",
        "FI_EFA_USE_DEVICE_RDMA": "1",
        "FI_EFA_FORK_SAFE": "0",
        "NCCL_DEBUG": "WARN",
    }
    assert pod.devices == {"vpc.amazonaws.com/efa": "32", "hugepages-2Mi": "5120Mi"}


def test_another_resource_of_the_same_network() -> None:
    nodes = {**H100_NODES, "network": "rdma", "network_resource": "rdma/ib", "network_devices": 8}
    assert worker_pod(Placement(2, 4), cluster(nodes)).devices == {"rdma/ib": "4"}


def test_presets_are_those_that_a_profile_may_name() -> None:
    names = Nodes.model_json_schema()["properties"]["network"]["enum"]
    assert names == list(NETWORKS)
    for network in NETWORKS.values():
        assert network.name == "none" or (network.resource and network.source)
    assert all(adapters >= 1 for adapters in EFA_ADAPTERS.values())
