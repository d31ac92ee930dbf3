"""The nodes that a profile's workers would run on: how many, their GPUs, their driver."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher import catalog
from launcher.doctor.check import Check, failure, ok, warning
from launcher.doctor.cluster import amount
from launcher.kube import GPU, Kube, KubeError, Object, condition
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.units import to_bytes

#: Labels of NVIDIA's GPU feature discovery.
PRODUCT_LABEL = "nvidia.com/gpu.product"
DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
#: CUDA major version -> oldest Linux driver of its line (CUDA Toolkit release notes, table 3: minor-version
#: compatibility).
OLDEST_DRIVER = {12: 525, 13: 580}


def nodes(kube: Kube, profile: KubernetesCluster, cuda_major: int | None) -> Iterator[Check]:
    """Nodes that match the profile's selector, and whether they hold what it says."""
    what = "nodes"
    try:
        found = [node for node in kube.list("Node") if _matches(node, profile.nodes.selector)]
    except KubeError as error:
        yield warning(what, f"may not be looked at ({error.reason})")
        return
    ready = [node for node in found if condition(node, "Ready") and not node["spec"].get("unschedulable")]
    if not ready:
        wanted = ", ".join(f"{key}={value}" for key, value in profile.nodes.selector.items())
        text = f"none is ready that has {wanted}" if wanted else "none is ready"
        yield warning(
            what, text, "a cluster that scales up adds them when workers ask; else mend the selector"
        )
        return
    yield from _size(ready, profile)
    if profile.nodes.gpu:
        yield from _gpus(ready, profile)
        yield from _driver(ready, cuda_major)


def _matches(node: Object, selector: dict[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _size(ready: list[Object], profile: KubernetesCluster) -> Iterator[Check]:
    """A pod of the profile's size must fit a node beside what the system keeps for itself."""
    cpus, memory_bytes = profile.nodes.cpus, to_bytes(profile.nodes.memory)
    fit = [
        node
        for node in ready
        if amount(node["status"]["allocatable"]["cpu"]) >= cpus
        and amount(node["status"]["allocatable"]["memory"]) >= memory_bytes
    ]
    text = f"{len(fit)} of {len(ready)} ready nodes have {cpus:g} cores and {profile.nodes.memory} to give"
    yield ok("nodes", text) if fit else warning("nodes", text, "lower nodes.cpus or nodes.memory")


def _gpus(ready: list[Object], profile: KubernetesCluster) -> Iterator[Check]:
    what, wanted = "GPUs", profile.nodes.gpus_per_node
    with_gpus = [node for node in ready if amount(node["status"]["allocatable"].get(GPU, "0")) >= wanted]
    if not with_gpus:
        way_out = "install NVIDIA's device plugin, or lower nodes.gpus_per_node"
        yield warning(what, f"no ready node has {wanted} {GPU}", way_out)
        return
    products = {(node["metadata"].get("labels") or {}).get(PRODUCT_LABEL, "") for node in with_gpus}
    known = catalog.find(profile.nodes.gpu or "")
    other = sorted(name for name in products if name and catalog.find(name) != known)
    if other:
        text = f"nodes have {', '.join(other)}, the profile says {profile.nodes.gpu}"
        yield failure(what, text, f"mend nodes.gpu, or select by the label {PRODUCT_LABEL}")
    else:
        label = "" if any(products) else f" (no label {PRODUCT_LABEL}: the type is taken on trust)"
        yield ok(what, f"{len(with_gpus)} nodes with {wanted} × {profile.nodes.gpu}{label}")


def _driver(ready: list[Object], cuda_major: int | None) -> Iterator[Check]:
    what = "GPU driver"
    majors = set()
    for node in ready:
        labels = node["metadata"].get("labels") or {}
        majors |= {int(labels[name]) for name in DRIVER_LABELS if re.fullmatch(r"\d+", labels.get(name, ""))}
    oldest = OLDEST_DRIVER.get(cuda_major or 0)
    if not majors or oldest is None:
        yield warning(what, "nodes do not tell it", "GPU feature discovery labels nodes with it")
    elif min(majors) < oldest:
        text = f"{min(majors)} is older than {oldest}, which CUDA {cuda_major} of the image needs"
        yield failure(what, text, "upgrade the driver, or lock a torch built for an older CUDA")
    else:
        yield ok(what, f"{min(majors)}, enough for CUDA {cuda_major}")
