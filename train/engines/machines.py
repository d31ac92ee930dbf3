"""The machines of a Ray cluster: whether they hold the workers of a training, and what each worker takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """One of Ray's nodes. On Kubernetes a pod: its head has no CPUs for workers."""

    id: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Demand:
    """What a training asks of a cluster. `apart`: each worker has a machine (a pod) of its own."""

    workers: int
    on_gpu: bool
    apart: bool

    def places(self, machine: Machine) -> int:
        """How many workers the machine holds."""
        if self.on_gpu:
            return machine.gpus
        return min(machine.cpus, 1) if self.apart else machine.cpus

    def places_of(self, machines: Sequence[Machine]) -> int:
        return min(self.workers, sum(map(self.places, machines)))

    def resources(self, machines: Sequence[Machine]) -> dict[str, float]:
        """What Ray reserves for one worker: all of a machine's CPUs where it is to be there alone."""
        if self.on_gpu:
            return {"CPU": 1, "GPU": 1}
        return {"CPU": min(machine.cpus for machine in machines if machine.cpus) if self.apart else 1}


def machines_of(nodes: Sequence[Mapping[str, Any]], leaving: Collection[str]) -> list[Machine]:
    """Of `ray.nodes()`, those alive and not about to end."""
    return [
        Machine(
            id=node["NodeID"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in nodes
        if node["Alive"] and node["NodeID"] not in leaving
    ]
