"""JSON Schema (draft 2020-12) of jobs and cluster profiles, for editors: `slipway schema job|cluster`."""

from __future__ import annotations

from typing import Any

from launcher.spec.cluster import LocalCluster
from launcher.spec.job import Job
from launcher.spec.section import Section

_NULL = {"type": "null"}


def job_schema() -> dict[str, Any]:
    return _schema(Job, "Slipway job")


def cluster_schema() -> dict[str, Any]:
    return _schema(LocalCluster, "Slipway cluster profile")


def _schema(model: type[Section], title: str) -> dict[str, Any]:
    """pydantic's schema, told that an empty value means left out, without titles that repeat the names."""
    schema = model.model_json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        required = section.get("required", ())
        for name, field in section["properties"].items():
            field.pop("title", None)
            if field.get("default") is None or isinstance(field.get("default"), dict):
                field.pop("default", None)  # left out: derived, or the section's own defaults
            if name not in required:
                section["properties"][name] = _or_null(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in field:
        branches = [branch for branch in field["anyOf"] if branch != _NULL]
        return {**field, "anyOf": [*branches, _NULL]}
    about = {key: value for key, value in field.items() if key in ("description", "default", "examples")}
    constraint = {key: value for key, value in field.items() if key not in about}
    return {**about, "anyOf": [constraint, _NULL]}
