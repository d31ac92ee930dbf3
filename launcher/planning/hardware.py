"""What a plan's workers may run on: this machine, or the nodes of a cluster as its profile describes them."""

from __future__ import annotations

from dataclasses import dataclass

from launcher import catalog
from launcher.machine import Gpu, Machine
from launcher.planning import placement
from launcher.spec.cluster import Cluster, LocalCluster
from launcher.spec.kubernetes import KubernetesCluster

CPU_WORKERS = 2


@dataclass(frozen=True)
class Natural:
    """How many workers there are where the job does not say, and why."""

    workers: int
    reason: str


@dataclass(frozen=True)
class Refusal:
    """Why so many workers can't be had."""

    why: str
    way_out: str


def compute_capability(gpu: Gpu) -> tuple[int, int] | None:
    """As the GPU's driver says, else the catalog; None where nothing is known of it."""
    known = catalog.find(gpu.name)
    return gpu.compute_capability or (known.compute_capability if known else None)


@dataclass(frozen=True)
class ThisMachine:
    """The machine that the launcher runs on."""

    machine: Machine
    name: str = "this machine"
    host: str = "this machine"  # whose memory the workers share

    @property
    def gpu(self) -> Gpu | None:
        """What every worker can count on: the first GPU's name, the smallest one's memory."""
        gpus = self.machine.gpus
        if not gpus:
            return None
        return Gpu(gpus[0].name, min(gpu.memory_bytes for gpu in gpus), gpus[0].compute_capability)

    def natural(self) -> Natural:
        gpus, cores = self.machine.gpus, self.machine.cores
        if gpus:
            return Natural(len(gpus), f"one for each GPU of this machine: {gpus[0].name}")
        why = f"no GPU here: {CPU_WORKERS} CPU workers, at most one for each of {cores} cores"
        return Natural(min(CPU_WORKERS, cores), why)

    def refusal(self, workers: int) -> Refusal | None:
        gpus = len(self.machine.gpus)
        if not gpus or workers <= gpus:
            return None
        why = f"this machine has {gpus} GPUs, and each worker needs one"
        return Refusal(why, f"write {gpus} or fewer, or leave it out")

    def memory_bytes(self, workers: int) -> int:
        """Host memory that so many workers have together."""
        return self.machine.memory_bytes


@dataclass(frozen=True)
class ClusterNodes:
    """The nodes of a Kubernetes cluster."""

    profile: KubernetesCluster
    name: str  # as `cluster prod`
    host: str = "its pods"

    @property
    def gpu(self) -> Gpu | None:
        nodes = self.profile.nodes
        known = catalog.find(nodes.gpu) if nodes.gpu else None
        return Gpu(known.name, known.memory_bytes, known.compute_capability) if known else None

    def natural(self) -> Natural:
        nodes = self.profile.nodes
        if not nodes.gpus_per_node:
            return Natural(CPU_WORKERS, f"{self.name} has no GPUs: {CPU_WORKERS} CPU workers")
        if nodes.count is None:
            return Natural(
                nodes.gpus_per_node, f"one for each GPU of a node: {nodes.gpus_per_node} × {nodes.gpu}"
            )
        number = nodes.count * nodes.gpus_per_node
        each = f"{nodes.count} nodes × {nodes.gpus_per_node} {nodes.gpu}"
        return Natural(number, f"one for each GPU of {self.name}: {each}")

    def refusal(self, workers: int) -> Refusal | None:
        most = self.profile.nodes.count
        if self._fits(workers):
            return None
        place = placement.place(workers, self.profile)
        if needed := placement.nodes_needed(place, self.profile):
            each = f"{place.pods} pods of {place.workers_per_pod}"
            why = f"{each} need {needed} nodes, and {self.name} gives a job {most} (nodes.count)"
        else:
            why = f"a node of {self.name} has no room for its part of so many, beside head and pilot"
        fitting = next((number for number in range(workers - 1, 0, -1) if self._fits(number)), None)
        return Refusal(why, f"write {fitting}" if fitting else "see nodes and resources of the profile")

    def _fits(self, workers: int) -> bool:
        needed = placement.nodes_needed(placement.place(workers, self.profile), self.profile)
        return 0 < needed <= (self.profile.nodes.count or needed)

    def memory_bytes(self, workers: int) -> int:
        """What the pods of so many workers may use together, without /dev/shm."""
        place = placement.place(workers, self.profile)
        return max(0, place.pods * placement.worker_pod(place, self.profile).usable_bytes)


Hardware = ThisMachine | ClusterNodes


def of(cluster: Cluster, name: str, machine: Machine) -> Hardware:
    """What the profile `cluster`, called `name`, runs workers on; `machine` is this one."""
    if isinstance(cluster, LocalCluster):
        return ThisMachine(machine)
    return ClusterNodes(cluster, f"cluster {name}")
