"""A stand-in for `launcher.kube.Kube`: objects in memory, with the API server's refusals."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from launcher.kube import Kube, KubeError

Object = dict[str, Any]


class FakeKube:
    """Keeps objects by kind and name, as the API server does: names are taken, versions and uids change."""

    namespace = "slipway"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.logs: dict[str, str] = {}
        self._numbers = itertools.count(1)

    path = Kube.path

    def get(self, kind: str, name: str) -> Object | None:
        self.requests.append(("get", kind))
        found = self.objects.get((kind, name))
        return copy.deepcopy(found)

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        self.requests.append(("list", kind))
        wanted = [part.split("=") for part in labels.split(",") if part]
        return [
            copy.deepcopy(body)
            for (its_kind, _), body in self.objects.items()
            if its_kind == kind
            and all(body["metadata"].get("labels", {}).get(name) == value for name, value in wanted)
        ]

    def create(self, body: Object, *, dry_run: bool = False) -> Object:
        self.requests.append(("create", body["kind"]))
        name = (body["kind"], body["metadata"]["name"])
        if name in self.objects:
            raise KubeError(f"POST {name}", 409, "AlreadyExists", f"{name} already exists")
        made = copy.deepcopy(body)
        made["metadata"]["uid"] = f"uid-{next(self._numbers)}"
        made["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[name] = made
        return copy.deepcopy(made)

    def apply(self, body: Object, *, dry_run: bool = False) -> Object:
        self.requests.append(("apply", body["kind"]))
        name = (body["kind"], body["metadata"]["name"])
        if name not in self.objects:
            return self.create(body)
        return self.patch(*name, body)

    def patch(self, kind: str, name: str, patch: Object) -> Object:
        there = self.objects.get((kind, name))
        if there is None:
            raise KubeError(f"PATCH {name}", 404, "NotFound", "")
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, there["metadata"]["resourceVersion"]):
            raise KubeError(f"PATCH {name}", 409, "Conflict", "it has changed")
        _merge(there, copy.deepcopy(patch))
        there["metadata"]["resourceVersion"] = str(next(self._numbers))
        return copy.deepcopy(there)

    def delete(
        self, kind: str, name: str, *, uid: str | None = None, grace_s: int | None = None, wait: bool = False
    ) -> bool:
        self.requests.append(("delete", kind))
        there = self.objects.get((kind, name))
        if there is None or uid not in (None, there["metadata"]["uid"]):
            return False
        del self.objects[(kind, name)]
        return True

    def pod_log(self, pod: str, *, container: str | None = None, tail_lines: int | None = None) -> str:
        return self.logs.get(pod, "")

    def end(self, kind: str, name: str, condition: str) -> None:
        """Have the object end with that condition."""
        ended = {"type": condition, "status": "True"}
        self.objects[(kind, name)]["status"] = {"conditions": [ended]}


def _merge(there: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(there.get(key), dict):
            _merge(there[key], value)
        else:
            there[key] = value
