"""The order of the checks: first what everything else depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from artifacts.store import Store
from launcher.doctor import cluster, nodes, services
from launcher.doctor.check import Check, failure, require
from launcher.errors import ClusterError
from launcher.kube import Kube
from launcher.spec.kubernetes import KubernetesCluster


def examine(
    profile: KubernetesCluster,
    connect: Callable[[], Kube],
    store: Store,
    *,
    wanted: dict[str, float] | None = None,
    cuda_major: int | None = None,
    publishes: bool = False,
) -> Iterator[Check]:
    """Every check, one after the other. `wanted`: what a job takes of the namespace's quota (as
    `requests.cpu` -> cores); `cuda_major`: of the image; `publishes`: the job does, to a hub."""
    yield services.bucket(store)
    yield services.registry(profile)
    try:
        kube = connect()
    except ClusterError as error:
        yield failure("context", str(error))
        return
    server = cluster.reachable(kube)
    yield server
    if server.level == "failure":
        return
    yield cluster.namespace(kube)
    yield cluster.kuberay(kube)
    yield from cluster.permissions(kube)
    yield from cluster.named_objects(kube, profile)
    if publishes:
        yield cluster.hub_token(profile)
    yield from cluster.quota(kube, wanted or {})
    yield from nodes.nodes(kube, profile, cuda_major)
    yield services.clock(kube)


def preflight(profile: KubernetesCluster, kube: Kube, store: Store) -> None:
    """What must hold before anything is spent on a job. Raises ClusterError for the first thing that does
    not; costs about ten requests."""
    require(_preflight(profile, kube, store))


def _preflight(profile: KubernetesCluster, kube: Kube, store: Store) -> Iterator[Check]:
    yield cluster.reachable(kube)
    yield cluster.namespace(kube)
    yield cluster.kuberay(kube)
    yield from cluster.named_objects(kube, profile)
    yield services.bucket(store)
