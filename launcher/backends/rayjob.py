"""The Ray cluster of a training: a RayJob in HTTP mode, with a head and one group of workers. Pure functions.

In HTTP mode the operator itself gives the entrypoint to the head and asks for its state: there is no
submitter pod whose end could be taken for the training's. The head runs the driver and no worker.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.backends.pod_template import WORK, Pod, pod_template
from launcher.backends.pods import KEY, ROLE
from launcher.kube import GPU, Object
from launcher.planning.placement import Placement, WorkerPod, place, pods_per_node, worker_pod
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.code import ROOT, TRAIN_LOCK, locked_versions

#: Of the images: they are built from the lock that lies beside this code.
RAY_VERSION = locked_versions(ROOT / TRAIN_LOCK).get("ray", "")

#: From the end of the grace period to the end of the pod: Ray itself stops, the last log lines leave.
GRACE_MARGIN_S = 30
#: How long an ended training keeps its cluster, and so its GPUs. Logs are in the store by then.
_CLUSTER_TTL_S = 10
#: Nothing large travels through Ray's object store. Its default is 30 % of the pod's memory, in /dev/shm.
_OBJECT_STORE_BYTES = 256 * 1024**2
_HEAD_SHARED_MEMORY_BYTES = 512 * 1024**2


def ray_job_spec(
    profile: KubernetesCluster, world_size: int, command: Sequence[str], common: Mapping[str, Any]
) -> Object:
    """The `spec` of the RayJob that trains `world_size` ranks, `command` being its driver. `common` are the
    fields of `Pod` that the stage gives all its pods: `image`, `plan` and `labels`."""
    grace_s = profile.limits.grace_s
    common = {
        **common,
        "service_account": profile.service_account,
        "drain": ("python", "-m", "train.drain", "--work", WORK, "--wait", str(grace_s)),
        "grace_s": grace_s + GRACE_MARGIN_S,
    }
    return {
        "submissionMode": "HTTPMode",
        "entrypoint": shlex.join(command),
        "backoffLimit": 0,  # the pilot decides on retries
        "activeDeadlineSeconds": profile.limits.pending_s + profile.limits.train_s,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _CLUSTER_TTL_S,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "authOptions": {"mode": "token"},
            "headGroupSpec": _head(profile, common),
            "workerGroupSpecs": [_workers(profile, place(world_size, profile), common)],
        },
    }


def _head(profile: KubernetesCluster, common: Mapping[str, Any]) -> Object:
    resources = profile.resources.head
    labels = {**common["labels"], ROLE: "head"}
    pod = Pod(
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        shared_memory_bytes=min(_HEAD_SHARED_MEMORY_BYTES, resources.memory_bytes // 4),
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
        spec=_priority(profile),
        **{**common, "labels": labels},
    )
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",
            "num-cpus": "0",  # no worker runs on the head
            "num-gpus": "0",
            "object-store-memory": str(_OBJECT_STORE_BYTES),
        },
        "template": pod_template(profile, pod),
    }


def _workers(profile: KubernetesCluster, placement: Placement, common: Mapping[str, Any]) -> Object:
    each = worker_pod(placement, profile)
    labels = {**common["labels"], ROLE: "worker"}
    pod = Pod(
        cpus=each.cpus,
        memory_bytes=each.memory_bytes,
        shared_memory_bytes=each.shared_memory_bytes,
        devices=_devices(each),
        environment={
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": str(max(1, math.floor(each.cpus / placement.workers_per_pod))),
            **each.variables,
        },
        spec={**_priority(profile), **_nodes(profile, placement, labels)},
        **{**common, "labels": labels},
    )
    return {
        "groupName": "workers",
        "replicas": placement.pods,
        "minReplicas": placement.pods,
        "maxReplicas": placement.pods,
        "rayStartParams": {
            # Ray's unit of scheduling: each worker asks for one CPU, whatever it may use.
            "num-cpus": str(max(placement.workers_per_pod, math.floor(each.cpus))),
            "num-gpus": str(each.gpus),
            "object-store-memory": str(_OBJECT_STORE_BYTES),
        },
        "template": pod_template(profile, pod),
    }


def _devices(each: WorkerPod) -> dict[str, str]:
    gpus = {GPU: str(each.gpus)} if each.gpus else {}
    return {**gpus, **each.devices}


def _priority(profile: KubernetesCluster) -> Object:
    return {"priorityClassName": profile.queue.priority_class} if profile.queue.priority_class else {}


def _nodes(profile: KubernetesCluster, placement: Placement, labels: Mapping[str, str]) -> Object:
    """Which nodes the workers go to."""
    nodes = profile.nodes
    workers = {"matchLabels": {name: labels[name] for name in (KEY, ROLE)}}
    spec: Object = {}
    if not nodes.gpu:
        # A preference: a cluster with one node left still trains.
        spread = {"topologyKey": nodes.topology_key, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
        spec["topologySpreadConstraints"] = [{**spread, "labelSelector": workers}]
    if affinity := _affinity(profile, placement, workers):
        spec["affinity"] = {"podAffinity": affinity}
    return spec | training_nodes(profile)


def training_nodes(profile: KubernetesCluster) -> Object:
    """The part of a pod's spec that lets it onto the nodes that train, where the GPUs are."""
    nodes = profile.nodes
    spec: Object = {}
    if nodes.selector:
        spec["nodeSelector"] = dict(nodes.selector)
    if nodes.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in nodes.tolerations]
    return spec


def _affinity(profile: KubernetesCluster, placement: Placement, workers: Object) -> Object:
    """Workers in one zone or rack where the profile asks for it, and small pods with GPUs on as few nodes as
    hold them: what they say to each other then stays there."""
    nodes = profile.nodes
    affinity: Object = {}
    if nodes.together_key:
        together = {"topologyKey": nodes.together_key, "labelSelector": workers}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = [together]
    if nodes.gpu and pods_per_node(placement, profile) > 1:
        near = {"topologyKey": "kubernetes.io/hostname", "labelSelector": workers}
        preferred = [{"weight": 100, "podAffinityTerm": near}]
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return affinity
