"""What a plan says of its cluster: where workers go, which image they run, what is uploaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from artifacts.contract import Derived
from launcher.memory import bytes_text
from launcher.networks import NETWORKS
from launcher.planning.placement import Placement, nodes_needed, place, pods_per_node, worker_pod
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.in_place import on_this_machine
from launcher.stages.sources import Source

#: Of fields that `launcher.planning.text` shows in a section of their own.
PREFIX = "cluster."


def derived(profile: KubernetesCluster, workers: int, models: Mapping[str, Source]) -> list[Derived]:
    """The lines, for the plan. `models`: those that it takes, by the name of their upload."""
    placement = place(workers, profile)
    lines = [
        ("namespace", profile.namespace, _context(profile)),
        ("placement", f"{placement.pods} × {placement.workers_per_pod}", _placement(placement, profile)),
        ("worker", worker_pod(placement, profile).cpus, _worker(placement, profile)),
        *_network(placement, profile),
        ("image", profile.image.builder, _image(profile)),
        *_uploads(models),
    ]
    return [Derived(field=PREFIX + name, value=value, reason=reason) for name, value, reason in lines]


def _context(profile: KubernetesCluster) -> str:
    context = f"context {profile.context}" if profile.context else "kubectl's current context"
    queue = f", queue {profile.queue.kueue} of Kueue" if profile.queue.kueue else ""
    return f"namespace {profile.namespace}, {context}{queue}"


def _placement(placement: Placement, profile: KubernetesCluster) -> str:
    workers, each = placement.workers_per_pod, pods_per_node(placement, profile)
    pods = _counted(placement.pods, "pod")
    needed = _counted(nodes_needed(placement, profile), "node")
    gpus = profile.nodes.gpus_per_node
    if not gpus:
        spread = f"{each} to a node, at most" if profile.nodes.count else "spread over nodes"
        return f"{pods} of one worker, {spread}: {needed}"
    text = f"{pods} of {_counted(workers, 'worker')}, one {profile.nodes.gpu} each: {needed}"
    idle = gpus - each * workers
    if placement.pods > 1 and idle:
        text += f"; {_counted(idle, 'GPU')} of each node stay free: {gpus} divides no better into the workers"
    return text


def _worker(placement: Placement, profile: KubernetesCluster) -> str:
    pod = worker_pod(placement, profile)
    shared = f"{bytes_text(pod.memory_bytes)}, of it {bytes_text(pod.shared_memory_bytes)} /dev/shm"
    given = "of resources.worker" if profile.resources.worker else "its share of a node"
    return f"{pod.cpus:g} cores, {shared}: {given}"


def _network(placement: Placement, profile: KubernetesCluster) -> Iterator[tuple[str, str, str]]:
    network, pod = NETWORKS[profile.nodes.network], worker_pod(placement, profile)
    if network.name != "none":
        devices = ", ".join(f"{number} {resource}" for resource, number in pod.devices.items())
        needs = f"; the image must have {network.needs}" if network.needs else ""
        yield "network", network.name, f"{network.what}: {devices} for a worker's pod{needs}"


def _image(profile: KubernetesCluster) -> str:
    image = profile.image
    if image.name is not None:
        return f"given: {image.name}"
    return f"built here with {image.builder} and pushed to {image.registry}, unless it is there"


def _uploads(models: Mapping[str, Source]) -> Iterator[tuple[str, int, str]]:
    for name, source in models.items():
        if source.params is not None and on_this_machine(source.params):
            size, place = bytes_text(source.size_bytes), source.params.location
            reason = f"{size} from {place} to the store, once: pods see no folder of this machine"
            yield name, source.size_bytes, reason


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
