from __future__ import annotations

from launcher.doctor.demand import demand


def pod(cpu: str, memory: str, **more: str) -> dict[str, object]:
    resources = {"cpu": cpu, "memory": memory, **more}
    return {
        "template": {"spec": {"containers": [{"resources": {"requests": resources, "limits": resources}}]}}
    }


def test_head_and_every_worker_count() -> None:
    gpu = {"nvidia.com/gpu": "8"}
    cluster = {
        "headGroupSpec": pod("500m", "6Gi"),
        "workerGroupSpecs": [{"replicas": 3, **pod("90", "100Gi", **gpu)}],
    }
    wanted = demand({"spec": {"rayClusterSpec": cluster}})
    assert wanted["pods"] == 4
    assert wanted["requests.cpu"] == wanted["limits.cpu"] == 270.5
    assert wanted["requests.memory"] == 306 * 2**30
    assert wanted["requests.nvidia.com/gpu"] == 24
