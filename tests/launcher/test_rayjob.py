from __future__ import annotations

from typing import Any

import pytest

from artifacts.contract import StageKind
from launcher.backends import manifest
from launcher.backends.rayjob import RAY_VERSION
from launcher.stages.code import ROOT, TRAIN_LOCK
from tests.launcher.kubernetes_plans import CPU, GPU, IMAGES, kubernetes_plan

Object = dict[str, Any]


def ray_job(profile: Object, workers: int = 2) -> Object:
    plan = kubernetes_plan(profile, workers)
    return manifest.stage_object(plan, "bot-0123abcd", plan.stage(StageKind.TRAIN), IMAGES)["spec"]


def worker_group(profile: Object, workers: int = 2) -> Object:
    (group,) = ray_job(profile, workers)["rayClusterSpec"]["workerGroupSpecs"]
    return group


def pod(group: Object) -> Object:
    return group["template"]["spec"]


def limits(group: Object) -> Object:
    return pod(group)["containers"][0]["resources"]["limits"]


def variables(group: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod(group)["containers"][0]["env"]}


def test_ray_is_the_locked_one() -> None:
    assert f"\nray=={RAY_VERSION} " in (ROOT / TRAIN_LOCK).read_text()
    assert ray_job(CPU)["rayClusterSpec"]["rayVersion"] == RAY_VERSION


def test_the_operator_never_retries_and_always_cleans_up() -> None:
    spec = ray_job({**CPU, "limits": {"train_s": 3600, "pending_s": 600}})
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] == 4200
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "suspend" not in spec


def test_entrypoint_is_one_plain_command() -> None:
    words = ray_job(CPU)["entrypoint"].split()
    assert words[:4] == ["python", "-m", "train.pod", "train"]
    assert not set("$`&|;'\"") & set(" ".join(words))


def test_head_takes_no_worker() -> None:
    head = ray_job(GPU, 16)["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in limits(head)
    assert "nodeSelector" not in pod(head)


@pytest.mark.parametrize(
    ("profile", "workers", "pods", "per_pod"),
    [(CPU, 1, 1, 1), (CPU, 5, 5, 1), (GPU, 16, 2, 8), (GPU, 12, 2, 6), (GPU, 4, 1, 4), (GPU, 1000, 125, 8)],
)
def test_group_is_as_large_as_the_placement(profile: Object, workers: int, pods: int, per_pod: int) -> None:
    group = worker_group(profile, workers)
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == pods
    gpus = per_pod if profile is GPU else 0
    assert group["rayStartParams"]["num-gpus"] == str(gpus)
    assert limits(group).get("nvidia.com/gpu", "0") == str(gpus)
    assert int(group["rayStartParams"]["num-cpus"]) >= per_pod  # a rank asks Ray for one CPU


def test_ranks_share_the_cores_of_their_pod() -> None:
    group = worker_group({**GPU, "resources": {"worker": {"cpus": 96, "memory": "512Gi"}}}, 16)
    assert variables(group)["OMP_NUM_THREADS"] == "12"
    assert limits(group)["cpu"] == "96"


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_shared_memory_leaves_room_for_processes(profile: Object) -> None:
    nodes = {**profile["nodes"], "shared_memory": "1Gi"}
    worker = {"worker": {"cpus": 2, "memory": "8Gi"}}
    cluster = ray_job({**profile, "resources": worker, "nodes": nodes}, 16)["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    for one, size in ((cluster["headGroupSpec"], "512Mi"), (group, "1Gi")):
        (volume,) = [volume for volume in pod(one)["volumes"] if volume["name"] == "shared-memory"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
        assert int(one["rayStartParams"]["object-store-memory"]) <= 256 * 1024**2


def test_pods_end_after_their_grace() -> None:
    cluster = ray_job({**CPU, "limits": {"grace_s": 77}})["rayClusterSpec"]
    for one in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        hook = pod(one)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook == ["python", "-m", "train.drain", "--work", "/work", "--wait", "77"]
        assert pod(one)["terminationGracePeriodSeconds"] > 77


def test_workers_without_gpus_prefer_to_spread() -> None:
    (spread,) = pod(worker_group({**CPU, "nodes": {**CPU["nodes"], "topology_key": "rack"}}))[
        "topologySpreadConstraints"
    ]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("rack", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"] == {"slipway/key": "4" * 12, "slipway/role": "worker"}


@pytest.mark.parametrize(("workers", "near"), [(16, False), (11, True)])
def test_small_pods_with_gpus_prefer_one_node(workers: int, near: bool) -> None:
    spec = pod(worker_group(GPU, workers))
    affinity = spec["affinity"]["podAffinity"]
    assert "topologySpreadConstraints" not in spec
    assert ("preferredDuringSchedulingIgnoredDuringExecution" in affinity) == near


def test_workers_share_what_the_profile_says() -> None:
    affinity = pod(worker_group(GPU, 16))["affinity"]["podAffinity"]
    (together,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert together["topologyKey"] == "topology.k8s.aws/network-node-layer-2"
    assert "affinity" not in pod(worker_group(CPU))


def test_fast_network_is_asked_for_by_the_share_of_a_node() -> None:
    whole, half = limits(worker_group(GPU, 16)), limits(worker_group(GPU, 4))
    assert (whole["vpc.amazonaws.com/efa"], half["vpc.amazonaws.com/efa"]) == ("32", "16")
    assert whole["hugepages-2Mi"] == "5120Mi"


def test_workers_go_where_the_profile_says() -> None:
    spec = pod(worker_group(GPU, 16))
    assert spec["nodeSelector"] == {"node.kubernetes.io/instance-type": "p5.48xlarge"}
    assert spec["tolerations"] == GPU["nodes"]["tolerations"]
    assert spec["priorityClassName"] == "training"


def test_network_variables_reach_workers_alone() -> None:
    cluster = ray_job(GPU, 16)["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert variables(group)["NCCL_DEBUG"] == "WARN"
    assert "NCCL_DEBUG" not in variables(cluster["headGroupSpec"])


def test_kueue_starts_it() -> None:
    assert ray_job({**CPU, "queue": {"kueue": "research"}})["suspend"] is True
