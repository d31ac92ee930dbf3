"""Workers, their GPU type, their engine and their memory."""

from __future__ import annotations

from artifacts.contract import Engine
from launcher import catalog
from launcher.catalog import Accelerator
from launcher.memory import bytes_text
from launcher.planning import batch, placement
from launcher.planning.findings import Findings
from launcher.planning.hardware import ClusterNodes


def engine(found: Findings) -> Engine:
    wanted = found.job.engine
    if isinstance(found.hardware, ClusterNodes):
        if wanted == "torchrun":
            why = "torchrun starts workers on one machine; on a cluster ray starts them, on all nodes"
            found.refuse("engine", wanted, why, "write ray, or leave it out")
        elif wanted == "auto":
            found.say("engine", "ray", "it starts the workers of a cluster's nodes")
        return "ray"
    if wanted != "auto":
        return wanted
    found.say("engine", "torchrun", "one machine: it reaches the first step sooner than ray")
    return "torchrun"


def workers(found: Findings) -> int:
    """How many processes train. A number that can't be had is refused."""
    wanted, natural = found.job.compute.workers, found.hardware.natural()
    if found.job.strategy.type == "single":
        if wanted is None:
            found.say("compute.workers", 1, "strategy single")
        elif wanted > 1:
            way_out = "write workers: 1, or use strategy ddp"
            found.refuse("compute.workers", wanted, "strategy single has one worker", way_out)
        return 1
    number = wanted or natural.workers
    if wanted is None:
        found.say("compute.workers", number, natural.reason)
    if refusal := found.hardware.refusal(number):
        found.refuse("compute.workers", number, refusal.why, refusal.way_out)
    return number


def accelerator(found: Findings) -> Accelerator | None:
    """The GPU type in the catalog; None on CPU and for a GPU that it does not know."""
    wanted, gpu, place = found.job.compute.accelerator, found.hardware.gpu, found.hardware.name
    if wanted is not None and catalog.find(wanted) is None:
        known = ", ".join(catalog.names())
        found.refuse("compute.accelerator", wanted, "no such GPU type in the catalog", f"one of {known}")
    elif wanted is not None and isinstance(found.hardware, ClusterNodes):
        _require_on_cluster(found, wanted)
    if gpu is None:
        if wanted is not None:
            found.say("compute.accelerator", None, f"no {wanted} here: the job runs on {place}'s cores")
        return None
    here = catalog.find(gpu.name)
    if here is None:
        found.say("compute.accelerator", None, f"{gpu.name} is not in the catalog: MFU is not reported")
    elif wanted is None or catalog.find(wanted) != here:
        instead = f", not {wanted}" if wanted else ""
        found.say("compute.accelerator", here.name, f"{place} has {gpu.name}{instead}")
    return here


def _require_on_cluster(found: Findings, wanted: str) -> None:
    """Who names a GPU type pays for it: nodes with another, or none, are not what was meant."""
    gpu, place = found.hardware.gpu, found.hardware.name
    if gpu is None or catalog.find(wanted) != catalog.find(gpu.name):
        why = f"{place} has {gpu.name if gpu else 'no GPUs'}"
        found.refuse("compute.accelerator", wanted, why, "choose another cluster, or leave it out")


def host_memory_bytes(found: Findings, workers: int) -> int:
    """What all workers together may take of the memory where they run."""
    compute, here = found.job.compute, found.hardware.memory_bytes(workers)
    if compute.memory_bytes is None:
        return here
    wanted = workers * compute.memory_bytes
    if wanted > here:
        who = batch.counted_workers(workers)
        verb = "have" if isinstance(found.hardware, ClusterNodes) else "has"
        why = f"{who} want {bytes_text(wanted)}, {found.hardware.host} {verb} {bytes_text(here)}"
        found.refuse("compute.memory", compute.memory, why, "lower it, use fewer workers, or leave it out")
    return min(wanted, here)


def workers_per_node(found: Findings, workers: int) -> int:
    """How many of the workers share a node: what hybrid sharding splits weights over."""
    if not isinstance(found.hardware, ClusterNodes):
        return workers
    return placement.place(workers, found.hardware.profile).workers_per_pod
