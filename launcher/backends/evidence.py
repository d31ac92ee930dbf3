"""What is kept of a stage that ended badly in the cluster: its objects, their events, the ends of their logs.

`runs/<run-id>/evidence/<stage>-<n>/` holds `object.json`, `pods.json`, `events.json` and
`logs/<pod>-<container>.log`. All passes the redaction filter.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from artifacts.redact import Redactor
from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.kube import Kube, Object

LOG_LINES = 200
#: Pods whose logs are kept: those that ended badly come first, and many workers tell the same.
_MOST_LOGS = 16


def evidence_prefix(run_id: str) -> str:
    return f"runs/{run_id}/evidence"


def save(store: Store, kube: Kube, run_id: str, stage: str, body: Object, pods: Sequence[Object]) -> str:
    """Write it; returns the folder's address. What the API server no longer gives out is left out."""
    prefix = f"{evidence_prefix(run_id)}/{stage}-{_next_number(store, run_id, stage)}"
    redact = Redactor()

    def write(name: str, text: str) -> None:
        store.write_bytes(f"{prefix}/{name}", redact(text).encode())

    write("object.json", _pretty(_trimmed(body)))
    write("pods.json", _pretty([_trimmed(pod) for pod in pods]))
    with contextlib.suppress(ClusterError):
        write("events.json", _pretty(_events(kube, body, pods)))
    badly_first = sorted(pods, key=lambda pod: pod.get("status", {}).get("phase") != "Failed")
    for pod in badly_first[:_MOST_LOGS]:
        name = pod["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            with contextlib.suppress(ClusterError):
                log = kube.pod_log(name, container=container["name"], tail_lines=LOG_LINES)
                write(f"logs/{name}-{container['name']}.log", log)
    return f"{store.uri}/{prefix}"


def _next_number(store: Store, run_id: str, stage: str) -> int:
    root = f"{evidence_prefix(run_id)}/"
    names = {info.key.removeprefix(root).partition("/")[0] for info in store.list(root.rstrip("/"))}
    return 1 + sum(name.rpartition("-")[0] == stage for name in names)


def _events(kube: Kube, body: Object, pods: Sequence[Object]) -> list[Any]:
    """Of the object, its Ray cluster and its pods; those of the namespace are few requests fewer."""
    cluster = body.get("status", {}).get("rayClusterName")
    names = {body["metadata"]["name"], cluster, *(pod["metadata"]["name"] for pod in pods)}
    fields = ("type", "reason", "message", "involvedObject", "count", "firstTimestamp", "lastTimestamp")
    return [
        {name: event[name] for name in fields if event.get(name) is not None}
        for event in kube.list("Event")
        if event["involvedObject"].get("name") in names
    ]


def _trimmed(body: Object) -> Object:
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "metadata": metadata}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
