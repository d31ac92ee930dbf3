"""What must hold for every object that is made in a cluster, whatever the profile and the stage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

Object = dict[str, Any]

#: Longest names: pods add 6 characters to a Job's name, KubeRay many to a RayJob's.
NAME_LIMITS = {"RayJob": 47, "Job": 57, "ConfigMap": 63, "NetworkPolicy": 63}
_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_SECRET = re.compile(r"(?i)token|secret|password|credential|(^|_)key(_|$)")


def pod_templates(body: Object) -> list[Object]:
    if body["kind"] == "Job":
        return [body["spec"]["template"]]
    if body["kind"] == "RayJob":
        cluster = body["spec"]["rayClusterSpec"]
        return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return []


def audit(objects: Sequence[Object]) -> list[str]:
    """Whatever is wrong with them, in words."""
    return [f"{body['kind']} {body['metadata']['name']}: {why}" for body in objects for why in _faults(body)]


def _faults(body: Object) -> Iterator[str]:
    name = body["metadata"]["name"]
    if len(name) > NAME_LIMITS[body["kind"]]:
        yield "the name is too long"
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        yield "the name is no DNS label"
    for key, value in body["metadata"]["labels"].items():
        if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value):
            yield f"label {key} has no valid value"
    for template in pod_templates(body):
        yield from _pod_faults(template["spec"])


def _pod_faults(spec: Object) -> Iterator[str]:
    security = spec["securityContext"]
    if not (security["runAsNonRoot"] and security["runAsUser"] >= 1000):
        yield "runs as root"
    if security["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    pilot = spec["serviceAccountName"] == "slipway-pilot"
    if spec["automountServiceAccountToken"] != pilot:
        yield "the token of the service account is for the pilot"
    writable = set()
    for volume in spec["volumes"]:
        if "hostPath" in volume:
            yield "hostPath"
        if "emptyDir" in volume:
            writable.add(volume["name"])
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        yield from _container_faults(container)
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for path in ("/tmp", "/work", "/cache", "/dev/shm", "/home/slipway"):
            if path not in [where for name, where in mounted.items() if name in writable]:
                yield f"{path} is not writable"


def _container_faults(container: Object) -> Iterator[str]:
    if not _DIGEST.fullmatch(container["image"]):
        yield f"{container['image']} is no digest"
    security = container["securityContext"]
    if security["privileged"] or security["allowPrivilegeEscalation"]:
        yield "privileged"
    if security["capabilities"] != {"drop": ["ALL"]}:
        yield "capabilities"
    if not security["readOnlyRootFilesystem"]:
        yield "the root file system can be written to"
    resources = container["resources"]
    if resources["requests"] != resources["limits"] or not {"cpu", "memory"} <= set(resources["limits"]):
        yield "requests and limits differ"
    names = [entry["name"] for entry in container["env"]]
    if len(names) != len(set(names)):
        yield "a variable is set twice"
    for entry in container["env"]:
        if _SECRET.search(entry["name"]) and "value" in entry:
            yield f"{entry['name']} is spelt out"
