"""Where the workers of a training go on a cluster: how many to a pod, and what a pod takes of its node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.units import to_bytes


@dataclass(frozen=True)
class Placement:
    pods: int
    workers_per_pod: int


@dataclass(frozen=True, kw_only=True)
class WorkerPod:
    cpus: float
    memory_bytes: int
    shared_memory_bytes: int
    gpus: int
    devices: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def place(world_size: int, profile: KubernetesCluster) -> Placement:
    largest = max(1, profile.nodes.gpus_per_node)
    workers = next(size for size in range(min(largest, world_size), 0, -1) if world_size % size == 0)
    return Placement(world_size // workers, workers)


def pods_per_node(placement: Placement, profile: KubernetesCluster) -> int:
    nodes = profile.nodes
    if nodes.gpus_per_node:
        return max(1, nodes.gpus_per_node // placement.workers_per_pod)
    return math.ceil(placement.pods / (nodes.count or placement.pods))


def worker_pod(placement: Placement, profile: KubernetesCluster) -> WorkerPod:
    share = placement.workers_per_pod / (profile.nodes.gpus_per_node or 1)
    memory_bytes = int(share * to_bytes(profile.nodes.memory))
    return WorkerPod(
        cpus=share * profile.nodes.cpus,
        memory_bytes=memory_bytes,
        shared_memory_bytes=memory_bytes // 8,
        gpus=placement.workers_per_pod if profile.nodes.gpus_per_node else 0,
        variables=dict(profile.nodes.nccl),
    )
