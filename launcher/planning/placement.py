"""Where the workers of a training go on a cluster: how many to a pod, and what a pod takes of its node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from launcher.networks import NETWORKS
from launcher.spec.kubernetes import KubernetesCluster

_MIB = 2**20
_MAX_SHARED_MEMORY_BYTES = 16 * 2**30
#: Of a pod's memory, where the profile says nothing of /dev/shm.
_SHARED_MEMORY_SHARE = 8


@dataclass(frozen=True)
class Placement:
    """`pods` × `workers_per_pod` workers; each worker has one GPU where the nodes have any."""

    pods: int
    workers_per_pod: int


@dataclass(frozen=True, kw_only=True)
class WorkerPod:
    """What one worker pod requests and is limited to. `shared_memory_bytes` (/dev/shm) is part of
    `memory_bytes`; `devices` are extended resources and huge pages beside the GPUs, as Kubernetes writes
    them; `variables` are NCCL's."""

    cpus: float  # in steps of 0.1
    memory_bytes: int  # whole MiB
    shared_memory_bytes: int  # whole MiB
    gpus: int
    devices: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def usable_bytes(self) -> int:
        """Memory for processes."""
        return self.memory_bytes - self.shared_memory_bytes


def place(world_size: int, profile: KubernetesCluster) -> Placement:
    """With GPUs the fewest pods of equal size that fit on nodes; without GPUs one worker to a pod."""
    largest = max(1, profile.nodes.gpus_per_node)
    workers = next(size for size in range(min(largest, world_size), 0, -1) if world_size % size == 0)
    return Placement(world_size // workers, workers)


def pods_per_node(placement: Placement, profile: KubernetesCluster) -> int:
    """How many of the pods go to one node, 0 where not one does.

    By the node's GPUs; without GPUs they are spread over `nodes.count` nodes, or one to a node. Given
    resources of a worker's pod bound it too."""
    nodes, given = profile.nodes, profile.resources.worker
    if nodes.gpus_per_node:
        most = nodes.gpus_per_node // placement.workers_per_pod
    else:
        most = math.ceil(placement.pods / (nodes.count or placement.pods))
    if given is None:
        return most
    return min(most, int(nodes.cpus / given.cpus), nodes.memory_bytes // given.memory_bytes)


def nodes_needed(placement: Placement, profile: KubernetesCluster) -> int:
    """How many nodes the pods take, 0 where a pod fits none."""
    each = pods_per_node(placement, profile)
    pod = worker_pod(placement, profile)
    return math.ceil(placement.pods / each) if each and pod.cpus > 0 and pod.usable_bytes > 0 else 0


def worker_pod(placement: Placement, profile: KubernetesCluster) -> WorkerPod:
    """What the profile says of a worker's pod, else its share of a node after head and pilot had theirs.

    The share may come out at nothing on nodes that are too small: the plan refuses it (`nodes_needed`)."""
    nodes, resources = profile.nodes, profile.resources
    if resources.worker is not None:
        cpus, memory_bytes = resources.worker.cpus, resources.worker.memory_bytes
    else:
        parts = pods_per_node(placement, profile)  # of a node without GPUs
        share = placement.workers_per_pod / nodes.gpus_per_node if nodes.gpus_per_node else 1 / parts
        cpus = share * (nodes.cpus - resources.head.cpus - resources.pilot.cpus)
        others = resources.head.memory_bytes + resources.pilot.memory_bytes
        memory_bytes = int(share * (nodes.memory_bytes - others))
    shared = min(_MAX_SHARED_MEMORY_BYTES, memory_bytes // _SHARED_MEMORY_SHARE)
    if nodes.shared_memory_bytes is not None:
        shared = nodes.shared_memory_bytes
    network = NETWORKS[nodes.network]
    return WorkerPod(
        cpus=math.floor(cpus * 10) / 10,
        memory_bytes=memory_bytes // _MIB * _MIB,
        shared_memory_bytes=shared // _MIB * _MIB,
        gpus=placement.workers_per_pod if nodes.gpus_per_node else 0,
        devices=_devices(placement, profile),
        variables={**network.variables, **nodes.nccl},
    )


def _devices(placement: Placement, profile: KubernetesCluster) -> dict[str, str]:
    """RDMA adapters, by the share of the node's GPUs; at least one."""
    nodes, network = profile.nodes, NETWORKS[profile.nodes.network]
    number = nodes.network_devices or network.devices or 0
    if not number:
        return {}
    mine = max(1, number * placement.workers_per_pod // nodes.gpus_per_node)
    return {nodes.network_resource or network.resource: str(mine), **network.extras}
