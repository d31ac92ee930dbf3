"""How many pods a training's workers make, and how many workers share one."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.spec.kubernetes import KubernetesCluster


@dataclass(frozen=True)
class Placement:
    pods: int
    workers_per_pod: int


def place(world_size: int, profile: KubernetesCluster) -> Placement:
    """With GPUs as many workers in one pod as divide `world_size` and have a GPU each on one node; without,
    one worker in each pod."""
    most = min(world_size, profile.nodes.gpus_per_node) if profile.nodes.gpu else 1
    workers_per_pod = next(count for count in range(max(most, 1), 0, -1) if world_size % count == 0)
    return Placement(world_size // workers_per_pod, workers_per_pod)
