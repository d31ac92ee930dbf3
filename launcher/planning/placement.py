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
    nodes, resources = profile.nodes, profile.resources
    if resources.worker is not None:
        cpus, memory_bytes = resources.worker.cpus, resources.worker.memory_bytes
    else:
        share = placement.workers_per_pod / (nodes.gpus_per_node or pods_per_node(placement, profile))
        cpus = share * (nodes.cpus - resources.head.cpus - resources.pilot.cpus)
        others = resources.head.memory_bytes + resources.pilot.memory_bytes
        memory_bytes = int(share * (to_bytes(nodes.memory) - others))
    return WorkerPod(
        cpus=math.floor(cpus * 10) / 10,
        memory_bytes=memory_bytes // 2**20 * 2**20,
        shared_memory_bytes=min(to_bytes(nodes.shared_memory), memory_bytes // 8),
        gpus=placement.workers_per_pod if nodes.gpus_per_node else 0,
        variables=dict(nodes.nccl),
    )
