"""What a job takes of its namespace's quota while it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from launcher.doctor.cluster import amount
from launcher.kube import Object


def demand(ray_job: Object) -> dict[str, float]:
    """Resources as a quota names them (`requests.cpu`, `limits.memory`, `pods`, …) of a RayJob's pods."""
    wanted: Counter[str] = Counter()
    for count, spec in _pods(ray_job):
        wanted["pods"] += count
        for container in spec["containers"]:
            for kind, resources in container["resources"].items():
                for name, quantity in resources.items():
                    wanted[f"{kind}.{name}"] += count * amount(quantity)  # type: ignore[assignment]
    return dict(wanted)


def _pods(ray_job: Object) -> Iterator[tuple[int, dict[str, Any]]]:
    """(how many, pod spec) of the head and of each group of workers."""
    cluster = ray_job["spec"]["rayClusterSpec"]
    yield 1, cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["replicas"], group["template"]["spec"]
