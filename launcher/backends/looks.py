"""What the API server says of one run's stages, looked at seldom enough for many runs at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from launcher.backends.pods import KEY, RAY_CLUSTER
from launcher.kube import Kube, Object

T = TypeVar("T")

#: Between two lists of one kind, and between two looks at events and nodes, which change less.
LIST_EVERY_S, DETAILS_EVERY_S = 1.0, 4.0


class Looks:
    """Lists of the objects that carry one of the plan's keys, kept for a moment and shared by its stages."""

    def __init__(
        self, kube: Kube, keys: Iterable[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube, self._clock = kube, clock
        self._selector = f"{KEY} in ({','.join(sorted(set(keys)))})"
        self._kept: dict[tuple[str, str], tuple[float, Any]] = {}

    def find(self, kind: str, name: str) -> Object | None:
        """The Job or RayJob of that name, as of the newest list."""
        found = next((body for body in self._list(kind) if body["metadata"]["name"] == name), None)
        return None if found is None else {"kind": kind, **found}

    def pods_of(self, body: Object) -> list[Object]:
        """The pods of a Job, or of a RayJob's present cluster."""
        if body["kind"] == "RayJob":
            cluster = body.get("status", {}).get("rayClusterName")
            return [
                pod
                for pod in self._list("Pod")
                if cluster and pod["metadata"]["labels"].get(RAY_CLUSTER) == cluster
            ]
        uid = body["metadata"]["uid"]
        return [
            pod
            for pod in self._list("Pod")
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]

    def warnings(self, names: Iterable[str]) -> list[Object]:
        """Warning events of the objects of these names."""
        return [
            event for name in names for event in self._keep("Event", name, DETAILS_EVERY_S, self._warnings)
        ]

    def of_queue(self) -> list[Object]:
        """Events of the workloads that a queue holds."""
        return self._keep("Event", "", DETAILS_EVERY_S, lambda _: self._of_kind("Workload"))

    def node(self, name: str) -> Object | None:
        """The node; None where it is gone. Raises KubeError with status 403 where it may not be read."""
        return self._keep("Node", name, DETAILS_EVERY_S, lambda name: self._kube.get("Node", name))

    def forget(self, kind: str) -> None:
        """Something of that kind was just changed: look anew."""
        self._kept.pop((kind, ""), None)

    def _list(self, kind: str) -> list[Object]:
        return self._keep(kind, "", LIST_EVERY_S, self._labelled)

    def _warnings(self, name: str) -> list[Object]:
        return self._kube.list("Event", fields=f"type=Warning,involvedObject.name={name}")

    def _of_kind(self, kind: str) -> list[Object]:
        return self._kube.list("Event", fields=f"involvedObject.kind={kind}")

    def _labelled(self, kind: str) -> list[Object]:
        return self._kube.list(kind, labels=self._selector)

    def _keep(self, kind: str, name: str, for_s: float, look: Callable[[str], T]) -> T:
        """What `look` says of the name (or of the kind, without one), at most `for_s` old."""
        now = self._clock()
        if (kind, name) not in self._kept or now - self._kept[kind, name][0] >= for_s:
            self._kept[kind, name] = (now, look(name or kind))
        found: T = self._kept[kind, name][1]
        return found
