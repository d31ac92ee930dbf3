"""Pods on nodes that are lost.

Such a pod stays Terminating, or Running, for ever: only its node could confirm its end. KubeRay waits for
that before it replaces the pod, and so does the Job controller, which even keeps a pod that was removed by
force (its finalizer waits for the pod's last phase). Once the node has not been ready for a while, a pod of
Ray is removed by force, and a Job is given up for a new one. What is still done over there, cut off, can't
commit a checkpoint (that needs all ranks), and any other artifact would be the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from launcher.backends.looks import Looks
from launcher.backends.pods import RAY_NODE_TYPE
from launcher.kube import Kube, KubeError, Object

#: From a node's loss (which Kubernetes notices after 40 s) to the removal of its pods: it may come back.
LOST_AFTER_S = 20.0


@dataclass(frozen=True)
class Lost:
    note: str = ""
    node: str = ""  # one that is lost
    removed: bool = False  # pods were, by force


class LostNodes:
    """Notices pods on lost nodes among those of a stage, and removes them."""

    def __init__(self, kube: Kube, looks: Looks, *, now: Callable[[], float] = time.time) -> None:
        self._kube, self._looks, self._now = kube, looks, now

    def notice(self, pods: Sequence[Object]) -> Lost:
        suspects = [pod for pod in pods if is_suspect(pod)]
        lost: dict[str, list[str]] = {}
        removed = False
        for pod in suspects:
            node = pod["spec"]["nodeName"]
            lost_s = self._lost_for_s(pod, node)
            if lost_s is None:
                continue
            lost.setdefault(node, []).append(_role(pod))
            if lost_s >= LOST_AFTER_S:
                metadata = pod["metadata"]
                self._kube.delete("Pod", metadata["name"], uid=metadata["uid"], grace_s=0)
                self._looks.forget("Pod")
                removed = True
        notes = [f"node {node} is not ready: {_listed(roles)} there is lost" for node, roles in lost.items()]
        told = f"{'. '.join(notes)}; it is replaced elsewhere" if notes else ""
        return Lost(told, next(iter(lost), ""), removed)

    def _lost_for_s(self, pod: Object, node: str) -> float | None:
        """How long the node has been lost; None where it is not."""
        try:
            body = self._looks.node(node)
        except KubeError as error:
            if error.status != 403:
                raise
            return _evicted_for_s(pod, self._now())
        return not_ready_s(body, self._now())


def is_suspect(pod: Object) -> bool:
    """A pod with a node that should be running and is not ready, or should be gone and is not."""
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return False
    if pod["metadata"].get("deletionTimestamp"):
        return True
    conditions = {item["type"]: item["status"] for item in pod.get("status", {}).get("conditions") or ()}
    return pod["status"].get("phase") in ("Running", "Unknown") and conditions.get("Ready") != "True"


def not_ready_s(node: Object | None, now_s: float) -> float | None:
    """For how long a node has not been ready; None where it is. One that is gone never comes back."""
    if node is None:
        return float("inf")
    conditions = node.get("status", {}).get("conditions") or ()
    ready = next((item for item in conditions if item["type"] == "Ready"), None)
    if ready is None or ready["status"] == "True":
        return None
    return now_s - unix_s(ready["lastTransitionTime"])


def _evicted_for_s(pod: Object, now_s: float) -> float | None:
    """Where nodes may not be read: a pod that was told to go since its node is unreachable, and did not."""
    deleted = pod["metadata"].get("deletionTimestamp")
    for item in pod.get("status", {}).get("conditions") or ():
        if deleted and item["type"] == "DisruptionTarget" and item.get("reason") == "DeletionByTaintManager":
            return max(0.0, now_s - unix_s(deleted))
    return None


def _role(pod: Object) -> str:
    role = (pod["metadata"].get("labels") or {}).get(RAY_NODE_TYPE)
    return {"head": "the head", "worker": "a worker"}.get(str(role), "its pod")


def _listed(roles: Sequence[str]) -> str:
    workers = sum(role == "a worker" for role in roles)
    others = [role for role in roles if role != "a worker"]
    some = "a worker" if workers == 1 else f"{workers} workers"
    return " and ".join([*others, *([some] if workers else [])])


def unix_s(moment: str) -> float:
    """Of a time as the API writes it (RFC 3339)."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
