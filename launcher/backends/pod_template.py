"""The pods of a run: one container each, unprivileged, with all that it may write to mounted and all that it
may use stated. Pure functions of the profile.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.kube import GPU, Object
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.units import to_bytes

CONTAINER = "slipway"
#: The resource that NVIDIA's device plugin hands out.
PLAN_FILE = "/etc/slipway/plan.json"
WORK = "/work"
_HOME = "/home/slipway"
_CACHE = "/cache"
#: The image's user (`images/Dockerfile`).
_USER_ID = 1000

_POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": _USER_ID,
    "runAsGroup": _USER_ID,
    "fsGroup": _USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}
#: Lists that `pod_template` merges item by item, as Kubernetes' own strategic merge does: by this field.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What sets one kind of pod apart from the others."""

    image: str
    plan: str  # name of the ConfigMap with the plan
    cpus: float
    memory_bytes: int  # a tmpfs at /dev/shm included
    labels: Mapping[str, str]
    service_account: str
    args: Sequence[str] = ()  # after the image's own entrypoint; empty: the operator sets the command
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: bool = True  # gets the profile's secrets beside the store's
    token: bool = False  # may speak to the API server
    devices: Mapping[str, str] = field(default_factory=dict)  # extended resources, huge pages
    shared_memory_bytes: int = 64 * 1024**2
    drain: Sequence[str] = ()  # run before the container is stopped
    grace_s: int = 30
    spec: Mapping[str, Any] = field(default_factory=dict)  # more of the pod's spec


def pod_template(profile: KubernetesCluster, pod: Pod) -> Object:
    """`{"metadata", "spec"}`, the profile's `pod_template` applied last."""
    metadata: Object = {"labels": {**profile.labels, **pod.labels}}
    if profile.annotations:
        metadata["annotations"] = dict(profile.annotations)
    spec: Object = {
        "serviceAccountName": pod.service_account,
        "automountServiceAccountToken": pod.token,
        "enableServiceLinks": False,
        "securityContext": copy.deepcopy(_POD_SECURITY),
        "terminationGracePeriodSeconds": pod.grace_s,
        "containers": [_container(profile, pod)],
        "volumes": _volumes(profile, pod),
        **pod.spec,
    }
    if profile.queue.scheduler_name:
        spec["schedulerName"] = profile.queue.scheduler_name
    if profile.image.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in profile.image.pull_secrets]
    template: Object = merge({"metadata": metadata, "spec": spec}, profile.pod_template)
    return template


def merge(value: Any, patch: Any, name: str = "") -> Any:
    """`value` with `patch` applied: a JSON merge patch (RFC 7386), but containers, volumes, variables and
    mounts are merged item by item, by name or mount path. Other lists are replaced."""
    if isinstance(patch, dict):
        result = dict(value) if isinstance(value, dict) else {}
        for key, item in patch.items():
            if item is None:
                result.pop(key, None)
            else:
                result[key] = merge(result.get(key), item, key)
        return result
    if (key := _MERGE_KEYS.get(name)) and _is_list_of(key, value) and _is_list_of(key, patch):
        items = {item[key]: item for item in value}
        for item in patch:
            items[item[key]] = merge(items.get(item[key]), item)
        return list(items.values())
    return copy.deepcopy(patch)


def _is_list_of(key: str, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and key in item for item in value)


def quantity(size_bytes: int) -> str:
    """`6442450944` -> `6Gi`: in the largest unit that it is a whole number of."""
    units = ((1024**3, "Gi"), (1024**2, "Mi"), (1024, "Ki"))
    factor, unit = next(((factor, unit) for factor, unit in units if size_bytes % factor == 0), (1, ""))
    return f"{size_bytes // factor}{unit}"


def _container(profile: KubernetesCluster, pod: Pod) -> Object:
    amounts = {
        "cpu": f"{pod.cpus:.0f}" if pod.cpus == int(pod.cpus) else f"{pod.cpus * 1000:.0f}m",
        "memory": quantity(pod.memory_bytes),
        **pod.devices,
    }
    container: Object = {
        "name": CONTAINER,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(profile, pod),
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": copy.deepcopy(_CONTAINER_SECURITY),
        "volumeMounts": [
            {"name": "plan", "mountPath": "/etc/slipway", "readOnly": True},
            {"name": "work", "mountPath": WORK},
            {"name": "cache", "mountPath": _CACHE},
            {"name": "home", "mountPath": _HOME},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    if pod.args:
        container["args"] = list(pod.args)
    if pod.drain:
        container["lifecycle"] = {"preStop": {"exec": {"command": list(pod.drain)}}}
    return container


def _volumes(profile: KubernetesCluster, pod: Pod) -> list[Object]:
    cache: Object = {"emptyDir": {"sizeLimit": profile.cache.size}}
    if profile.cache.claim:
        cache = {"persistentVolumeClaim": {"claimName": profile.cache.claim}}
    elif profile.cache.host_path:
        cache = {"hostPath": {"path": profile.cache.host_path, "type": "DirectoryOrCreate"}}
    shared_memory = {"medium": "Memory", "sizeLimit": quantity(pod.shared_memory_bytes)}
    return [
        {"name": "plan", "configMap": {"name": pod.plan}},
        {"name": "work", "emptyDir": {}},
        {"name": "cache", **cache},
        {"name": "home", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": shared_memory},
    ]


def _environment(profile: KubernetesCluster, pod: Pod) -> list[Object]:
    """Sorted by name; what a profile says wins over what is set here."""
    blind = profile.nodes.gpu and GPU not in pod.devices
    values = {
        "HOME": _HOME,
        "HF_HOME": f"{_CACHE}/huggingface",
        "SLIPWAY_CACHE": _CACHE,
        "SLIPWAY_CACHE_BYTES": str(to_bytes(profile.cache.size)),
        "TRITON_CACHE_DIR": f"{WORK}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{WORK}/inductor",
        "XDG_CACHE_HOME": f"{_HOME}/.cache",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, math.floor(pod.cpus))),
        # CUDA images ask for every GPU of the node, and many runtimes give them, whatever the pod requests.
        **({"NVIDIA_VISIBLE_DEVICES": "void"} if blind else {}),
        **profile.store_environment(in_cluster=True),
        **pod.environment,
        **profile.environment,
    }
    entries: dict[str, Object] = {name: {"value": value} for name, value in values.items()}
    for name, path in (("NODE_NAME", "spec.nodeName"), ("POD_NAME", "metadata.name")):
        entries[name] = {"valueFrom": {"fieldRef": {"fieldPath": path}}}
    secrets = {name: (item.secret, item.key) for name, item in profile.secrets.items() if pod.secrets}
    for name, (secret, key) in secrets.items():
        entries[name] = {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    if profile.s3.secret:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            reference: Object = {"name": profile.s3.secret, "key": name}
            if name == "AWS_SESSION_TOKEN":  # only temporary credentials have one
                reference["optional"] = True
            entries[name] = {"valueFrom": {"secretKeyRef": reference}}
    return [{"name": name, **entries[name]} for name in sorted(entries)]
