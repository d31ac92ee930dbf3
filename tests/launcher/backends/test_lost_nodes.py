"""`launcher.backends.lost_nodes`: who is suspected, how long it waits, and what is removed by force."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.backends.looks import Looks
from launcher.backends.lost_nodes import LOST_AFTER_S, Lost, LostNodes, is_suspect, not_ready_s
from launcher.backends.waiting import Object
from launcher.kube import KubeError
from tests.launcher.backends.api_answers import answer

NOW_S = 1_800_000_000.0
LOST_AT = "2027-01-15T07:59:40Z"  # 20 s before


class NodesOnly:
    """An API server that knows nodes, and remembers which pods were deleted."""

    def __init__(self, nodes: dict[str, str], status: int = 404) -> None:
        self.nodes, self.status = nodes, status
        self.deleted: list[tuple[str, Any, Any]] = []

    def get(self, kind: str, name: str) -> Object | None:
        assert kind == "Node"
        if self.status == 403:
            raise KubeError("GET nodes", 403, "Forbidden", "")
        if name not in self.nodes:
            return None
        ready = {"type": "Ready", "status": self.nodes[name], "lastTransitionTime": LOST_AT}
        return {"status": {"conditions": [ready]}}

    def delete(self, kind: str, name: str, *, uid: str, grace_s: int) -> bool:
        self.deleted.append((name, uid, grace_s))
        return True


def training() -> tuple[list[Object], str]:
    """Its pods, one of them on a node of its own and no longer ready; and that node."""
    _, pods, _ = answer("ray_jobs", "running")
    for pod in pods:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        pod["spec"]["nodeName"] = "well"
    pods[-1]["spec"]["nodeName"] = "lost"
    pods[-1]["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    return pods, "lost"


def watch(kube: NodesOnly, now_s: float = NOW_S) -> LostNodes:
    return LostNodes(kube, Looks(kube, ["key"]), now=lambda: now_s)  # type: ignore[arg-type]


def test_only_pods_that_should_be_there_or_gone_are_suspected() -> None:
    pods, _ = training()
    assert [is_suspect(pod) for pod in pods] == [False, False, True]
    pods[0]["metadata"]["deletionTimestamp"] = LOST_AT
    assert is_suspect(pods[0])
    pods[0]["status"]["phase"] = "Succeeded"
    assert not is_suspect(pods[0])
    del pods[2]["spec"]["nodeName"]
    assert not is_suspect(pods[2])


def test_a_lost_node_is_told_at_once_and_its_pods_are_removed_after_a_while() -> None:
    pods, node = training()
    kube = NodesOnly({node: "Unknown"})
    told = "node lost is not ready: a worker there is lost; it is replaced elsewhere"
    assert watch(kube, NOW_S - 1).notice(pods) == Lost(told, node)
    assert kube.deleted == []
    assert watch(kube, NOW_S - 20 + LOST_AFTER_S).notice(pods) == Lost(told, node, removed=True)
    metadata = pods[-1]["metadata"]
    assert kube.deleted == [(metadata["name"], metadata["uid"], 0)]


def test_a_pod_that_is_slow_on_a_sound_node_is_left_alone() -> None:
    pods, node = training()
    kube = NodesOnly({node: "True"})
    assert watch(kube).notice(pods) == Lost()
    assert kube.deleted == []


def test_a_node_that_is_gone_is_lost() -> None:
    pods, node = training()
    kube = NodesOnly({})
    assert watch(kube).notice(pods).node == node
    assert len(kube.deleted) == 1
    assert not_ready_s({"status": {}}, NOW_S) is None


@pytest.mark.parametrize(
    ("deleted", "reason", "removed"),
    [
        ("2027-01-15T07:59:30Z", "DeletionByTaintManager", True),
        ("2027-01-15T07:59:50Z", "DeletionByTaintManager", False),
        ("2027-01-15T07:59:30Z", "PreemptionByScheduler", False),
    ],
)
def test_where_nodes_may_not_be_read_the_eviction_tells(deleted: str, reason: str, removed: bool) -> None:
    pods, _ = training()
    kube = NodesOnly({}, status=403)
    assert watch(kube).notice(pods) == Lost()
    pods[-1]["metadata"]["deletionTimestamp"] = deleted
    put_out = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    pods[-1]["status"]["conditions"].append(put_out)
    watch(kube).notice(pods)
    assert bool(kube.deleted) == removed
