from __future__ import annotations

from typing import Any

import pytest

from train.engines.machines import Demand, Machine, machines_of

HEAD = {"NodeID": "head", "Alive": True, "Resources": {"memory": 3e9, "node:10.0.0.1": 1.0}}


def pod(name: str, *, cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """As `ray.nodes()` tells of a worker pod."""
    resources = {"CPU": cpus, "memory": 3e9} | ({"GPU": gpus} if gpus else {})
    return {"NodeID": name, "Alive": alive, "Resources": resources if alive else {}}


def test_those_that_are_alive_and_stay() -> None:
    nodes = [HEAD, pod("a", cpus=8, gpus=4), pod("b", cpus=8, alive=False), pod("c", cpus=8)]
    assert machines_of(nodes, leaving={"c"}) == [Machine("head", 0, 0), Machine("a", 8, 4)]


@pytest.mark.parametrize(
    ("demand", "pods", "places", "resources"),
    [
        # Without GPUs each worker has a pod of its own, and all of it.
        (Demand(2, on_gpu=False, apart=True), [(4, 0), (4, 0)], 2, {"CPU": 4}),
        (Demand(2, on_gpu=False, apart=True), [(4, 0)], 1, {"CPU": 4}),
        (Demand(2, on_gpu=False, apart=True), [(4, 0), (4, 0), (4, 0)], 2, {"CPU": 4}),
        (Demand(2, on_gpu=False, apart=False), [(4, 0)], 2, {"CPU": 1}),
        (Demand(16, on_gpu=True, apart=False), [(64, 8), (64, 8)], 16, {"CPU": 1, "GPU": 1}),
        (Demand(16, on_gpu=True, apart=False), [(64, 8), (64, 0)], 8, {"CPU": 1, "GPU": 1}),
    ],
)
def test_room_for_workers(
    demand: Demand, pods: list[tuple[int, int]], places: int, resources: dict[str, float]
) -> None:
    machines = [Machine("head", 0, 0), *(Machine(str(i), cpus, gpus) for i, (cpus, gpus) in enumerate(pods))]
    assert demand.places_of(machines) == places
    assert demand.resources(machines) == resources
