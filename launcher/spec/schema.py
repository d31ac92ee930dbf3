"""JSON Schema (draft 2020-12) of jobs and cluster profiles, for editors: `slipway schema job|cluster`."""

from __future__ import annotations

from typing import Any

from launcher.spec.cluster import BACKENDS, LocalCluster
from launcher.spec.job import Job
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.section import Section

_NULL = {"type": "null"}


def job_schema() -> dict[str, Any]:
    return _schema(Job, "Slipway job")


def local_cluster_schema() -> dict[str, Any]:
    return _schema(LocalCluster, "Profile of this machine")


def kubernetes_cluster_schema() -> dict[str, Any]:
    return _schema(KubernetesCluster, "Profile of a Kubernetes cluster")


def cluster_schema() -> dict[str, Any]:
    """Of either kind: the file's `backend` decides which one it is held against, so that an editor shows the
    mistakes of that kind alone."""
    local, kubernetes = local_cluster_schema(), kubernetes_cluster_schema()
    definitions = {**local.pop("$defs", {}), **kubernetes.pop("$defs", {})}
    kinds = {"LocalCluster": local, "KubernetesCluster": kubernetes}
    return {
        "$schema": local["$schema"],
        "title": "Slipway cluster profile",
        "description": "Where stages run and where artifacts are kept.",
        "type": "object",
        "properties": {"backend": {"enum": BACKENDS, "description": "Where stages run."}},
        "required": ["backend"],
        "if": {"properties": {"backend": {"const": "kubernetes"}}},
        "then": {"$ref": "#/$defs/KubernetesCluster"},
        "else": {"$ref": "#/$defs/LocalCluster"},
        "$defs": {
            **definitions,
            **{name: {key: kind[key] for key in kind if key != "$schema"} for name, kind in kinds.items()},
        },
    }


def _schema(model: type[Section], title: str) -> dict[str, Any]:
    """pydantic's schema, told that an empty value means left out, without titles that repeat the names."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    for section in (schema, *definitions.values()):
        required = section.get("required", ())
        for name, field in section["properties"].items():
            field.pop("title", None)
            if not _tells(field.get("default"), field, definitions):
                field.pop("default", None)  # left out: derived, or the section's own defaults
            if name not in required:
                section["properties"][name] = _or_null(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _tells(default: Any, field: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """Whether a default says something: more than that nothing is there, or what its section says anyway."""
    if isinstance(default, dict):
        section = definitions.get(field.get("$ref", "").rsplit("/", 1)[-1], {})
        return bool(section.get("required"))
    return default is not None


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in field:
        branches = [branch for branch in field["anyOf"] if branch != _NULL]
        return {**field, "anyOf": [*branches, _NULL]}
    about = {key: value for key, value in field.items() if key in ("description", "default", "examples")}
    constraint = {key: value for key, value in field.items() if key not in about}
    return {**about, "anyOf": [constraint, _NULL]}
