"""The Ray cluster of a training: a RayJob in HTTP mode, its head and one group of workers. Pure.

In HTTP mode the operator itself submits the entrypoint to the head and asks for its state: no submitter pod
whose end could be taken for the training's.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.contract import Plan, StagePlan
from launcher.backends.pod_template import Object, Pod, pod_template
from launcher.planning.placement import Placement, place
from launcher.spec.kubernetes import KubernetesCluster, Resources
from launcher.spec.units import to_bytes
from launcher.stages.code import ROOT, TRAIN_LOCK, locked_versions

#: Ray of the image: the locked one.
RAY_VERSION = locked_versions(ROOT / TRAIN_LOCK).get("ray", "")

#: Touches /work/stop and waits until the ranks of the pod have saved and ended.
DRAIN = ("python", "-m", "train.drain")
#: From the end of the grace period to the end of the pod.
GRACE_MARGIN_S = 30
#: How long an ended training keeps its cluster, and so its GPUs: its logs are in the store by then.
_CLUSTER_TTL_S = 10
#: Nothing large travels through Ray's object store; its default is 30 % of the pod's memory.
_OBJECT_STORE_BYTES = 256 * 1024**2


def ray_job_spec(
    plan: Plan,
    profile: KubernetesCluster,
    stage: StagePlan,
    *,
    image: str,
    plan_name: str,
    command: Sequence[str],
    labels: Mapping[str, str],
) -> Object:
    """The `spec` of the RayJob that trains."""
    placement = place(stage.params.world_size, profile)
    common: dict[str, Any] = {
        "image": image,
        "plan": plan_name,
        "service_account": profile.service_account,
        "drain": DRAIN,
        "grace_s": profile.limits.grace_s + GRACE_MARGIN_S,
    }
    head = _head(profile, labels, common)
    worker = _worker(profile, placement, labels, common)
    spec: Object = {
        "submissionMode": "HTTPMode",
        "entrypoint": shlex.join(command),
        "backoffLimit": 0,
        "activeDeadlineSeconds": profile.limits.train_s + profile.limits.pending_s,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _CLUSTER_TTL_S,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "authOptions": {"mode": "token"},
            "headGroupSpec": head,
            "workerGroupSpecs": [worker],
        },
    }
    if profile.queue.kueue:
        spec["suspend"] = True  # Kueue admits it
    return spec


def _head(profile: KubernetesCluster, labels: Mapping[str, str], common: Mapping[str, Any]) -> Object:
    resources = profile.resources.head
    pod = Pod(
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        shared_memory_bytes=min(2 * _OBJECT_STORE_BYTES, resources.memory_bytes // 2),
        labels={**labels, "slipway/role": "head"},
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
        spec=_priority(profile),
        **common,
    )
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",
            "num-cpus": "0",  # workers stay off the head
            "object-store-memory": str(_OBJECT_STORE_BYTES),
        },
        "template": pod_template(profile, pod),
    }


def _worker(
    profile: KubernetesCluster, placement: Placement, labels: Mapping[str, str], common: Mapping[str, Any]
) -> Object:
    resources = worker_resources(profile, placement)
    gpus = placement.workers_per_pod if profile.nodes.gpu else 0
    labels = {**labels, "slipway/role": "worker"}
    pod = Pod(
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        shared_memory_bytes=min(to_bytes(profile.nodes.shared_memory), resources.memory_bytes // 2),
        labels=labels,
        environment={
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": str(max(1, math.floor(resources.cpus / placement.workers_per_pod))),
            **profile.nodes.nccl,
        },
        devices={"nvidia.com/gpu": gpus} if gpus else {},
        spec={**_priority(profile), **_nodes(profile, labels)},
        **common,
    )
    ray_cpus = max(placement.workers_per_pod, math.floor(resources.cpus))
    return {
        "groupName": "workers",
        "replicas": placement.pods,
        "minReplicas": placement.pods,
        "maxReplicas": placement.pods,
        "rayStartParams": {
            "num-cpus": str(ray_cpus),
            "num-gpus": str(gpus),
            "object-store-memory": str(_OBJECT_STORE_BYTES),
        },
        "template": pod_template(profile, pod),
    }


def worker_resources(profile: KubernetesCluster, placement: Placement) -> Resources:
    """What one worker pod asks for: as the profile says, else its share of a node's GPUs in the rest of the
    node; without GPUs a whole node."""
    if profile.resources.worker is not None:
        return profile.resources.worker
    share = placement.workers_per_pod / profile.nodes.gpus_per_node if profile.nodes.gpu else 1.0
    memory_bytes = int(to_bytes(profile.nodes.memory) * share)
    return Resources(cpus=profile.nodes.cpus * share, memory=str(memory_bytes))


def _priority(profile: KubernetesCluster) -> Object:
    return {"priorityClassName": profile.queue.priority_class} if profile.queue.priority_class else {}


def _nodes(profile: KubernetesCluster, labels: Mapping[str, str]) -> Object:
    """Which nodes workers go to, and how they spread."""
    selected = {name: labels[name] for name in ("slipway/key", "slipway/role")}
    spec: Object = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": profile.nodes.topology_key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selected},
            }
        ]
    }
    if profile.nodes.selector:
        spec["nodeSelector"] = dict(profile.nodes.selector)
    if profile.nodes.tolerations:
        spec["tolerations"] = list(profile.nodes.tolerations)
    return spec
