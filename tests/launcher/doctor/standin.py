"""A stand-in for an API server: objects by kind and name, and refusals."""

from __future__ import annotations

from typing import Any

from launcher.kube import KubeError


class StandInKube:
    """Answers as `launcher.kube.Kube`. `refused`: kinds that may not be looked at (403)."""

    namespace = "ml"

    def __init__(
        self,
        objects: list[dict[str, Any]] | None = None,
        *,
        version: str = "v1.34.3",
        refused: tuple[str, ...] = (),
        denied: tuple[tuple[str, str], ...] = (),
        now: str = "",
    ) -> None:
        self.objects, self.refused, self.denied, self.now = objects or [], refused, denied, now
        self._version = version

    def version(self) -> str:
        return self._version

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((item for item in self.list(kind) if item["metadata"]["name"] == name), None)

    def list(self, kind: str, **_: str) -> list[dict[str, Any]]:
        if kind in self.refused:
            raise KubeError(f"GET {kind}", 403, "Forbidden", "not yours")
        return [item for item in self.objects if item["kind"] == kind]

    def create(self, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if body["kind"] == "SelfSubjectAccessReview":
            asked = body["spec"]["resourceAttributes"]
            return {"status": {"allowed": (asked["verb"], asked["resource"]) not in self.denied}}
        assert dry_run
        return {**body, "metadata": {**body["metadata"], "creationTimestamp": self.now}}


def named(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name}, **fields}


def definition(name: str, *fields: str, served: bool = True) -> dict[str, Any]:
    """A CustomResourceDefinition whose `spec` has these fields."""
    schema = {"properties": {"spec": {"properties": {field: {} for field in fields}}}}
    version = {"name": "v1", "served": served, "schema": {"openAPIV3Schema": schema}}
    return named("CustomResourceDefinition", name, spec={"versions": [version]})
