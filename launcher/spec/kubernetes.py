"""The cluster profile of a Kubernetes cluster with KubeRay, declared once as the job is.

Secrets are named, never held: what a profile says may stand in a plan, a manifest and a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from artifacts.redact import names_secret
from launcher.spec.grammar import (
    S3_URI_PATTERN,
    SECRET_KEY_PATTERN,
    SUBDOMAIN_PATTERN,
    VARIABLE_PATTERN,
    Label,
    annotation_conflicts,
    label_conflicts,
)
from launcher.spec.nodes import Cache, GpuResources, Nodes, StageResources
from launcher.spec.section import Conflict, Section
from launcher.spec.services import S3, Image
from launcher.spec.units import to_bytes

#: Kueue's label; `queue.kueue` writes it where it belongs.
KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
#: Variables that manifests set themselves.
_OWN_VARIABLES = re.compile(
    r"SLIPWAY_\w+|RAY_\w+|AWS_ENDPOINT_URL(_S3)?|AWS_(DEFAULT_)?REGION|AWS_RETRY_MODE|AWS_MAX_ATTEMPTS|"
    r"PYTHONPATH|PATH|HOME|NODE_NAME|POD_NAME"
)


class Queue(Section):
    """Who admits a job's pods together."""

    kueue: Label | None = Field(
        None,
        description="Kueue's LocalQueue in the namespace. Left out: no queue, pods are scheduled at once.",
    )
    scheduler_name: str | None = Field(
        None,
        pattern=SUBDOMAIN_PATTERN,
        description="`schedulerName` of all pods, for gang schedulers beside `labels`. Left out: the "
        "cluster's own scheduler.",
    )
    priority_class: str | None = Field(
        None, pattern=SUBDOMAIN_PATTERN, description="Priority class of workers. Left out: the default one."
    )


class Limits(Section):
    """Ends of what takes too long, in seconds."""

    train_s: int = Field(7 * 24 * 3600, ge=60, description="One training with its restarts, in seconds.")
    stage_s: int = Field(24 * 3600, ge=60, description="Any other stage, in seconds.")
    pending_s: int = Field(24 * 3600, ge=30, description="Waiting for nodes or the queue, in seconds.")
    grace_s: int = Field(
        120,
        ge=5,
        le=3600,
        description="From a request to stop to the end of a pod, in seconds: time to save a checkpoint.",
    )
    keep_s: int = Field(3600, ge=0, description="How long ended pods stay, in seconds.")


class SecretKey(Section):
    """One key of a Secret in the namespace."""

    secret: Label = Field(description="Name of the Secret.", examples=["tokens"])
    key: str = Field(pattern=SECRET_KEY_PATTERN, description="Its key.", examples=["HF_TOKEN"])


class KubernetesCluster(Section):
    """A Kubernetes cluster with the KubeRay operator."""

    backend: Literal["kubernetes"] = Field(
        description="Where stages run. `kubernetes`: pods of a cluster.", examples=["kubernetes"]
    )
    context: str | None = Field(
        None, min_length=1, description="kubectl context. Left out: kubectl's current one."
    )
    namespace: Label = Field("slipway", description="Namespace of everything that is made; it must exist.")
    store: str = Field(
        pattern=S3_URI_PATTERN,
        description="`s3://BUCKET/PREFIX` of the object store.",
        examples=["s3://bucket/slipway"],
    )
    work: str = Field(
        ".slipway/work",
        min_length=1,
        description="Folder on this machine (relative to the working directory) for digests and logs.",
    )
    s3: S3 = Field(S3(), description="How the bucket is reached.")
    image: Image = Field(
        description="The image that stages run in.", examples=[{"registry": "registry.example.com/ml"}]
    )
    nodes: Nodes = Field(description="The nodes that train.", examples=[{"cpus": 32, "memory": "128Gi"}])
    resources: StageResources = Field(StageResources(), description="What each kind of pod takes.")
    queue: Queue = Field(Queue(), description="Who admits pods.")
    limits: Limits = Field(Limits(), description="Time limits.")
    cache: Cache = Field(Cache(), description="Inputs kept on the nodes.")
    service_account: Label = Field("slipway-stage", description="Service account of stages and workers.")
    pilot_service_account: Label = Field(
        "slipway-pilot", description="Service account of the pilot, which starts them."
    )
    environment: dict[str, str] = Field(
        {}, description="Variables of all stages, as `HF_ENDPOINT: https://hf-mirror.com`; no secrets."
    )
    secrets: dict[str, SecretKey] = Field(
        {}, description="Variables whose values lie in Secrets, as `HF_TOKEN: {secret: tokens, key: hf}`."
    )
    network_policy: bool = Field(
        True, description="Make a policy that lets a run's pods be reached by each other only."
    )
    labels: dict[str, str] = Field({}, description="More labels of everything that is made.")
    annotations: dict[str, str] = Field({}, description="More annotations of everything that is made.")
    pod_template: dict[str, Any] = Field(
        {},
        description="Patch of every pod template (`metadata`, `spec`), for what is not foreseen here: "
        "mappings are merged, lists of named items by their names (the container's is `slipway`), all else "
        "is replaced.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if "://" in self.work:
            yield Conflict(("work",), "must be a folder on this machine")
        yield from self._size_conflicts()
        yield from self._variable_conflicts()
        yield from label_conflicts("labels", self.labels)
        yield from annotation_conflicts("annotations", self.annotations)
        if KUEUE_LABEL in self.labels:
            yield Conflict((("labels", KUEUE_LABEL),), "queue.kueue sets it", "write queue: {kueue: NAME}")
        for key in self.pod_template:
            if key not in ("metadata", "spec"):
                yield Conflict((("pod_template", key),), "a pod template has metadata and spec alone")
        yield from _literal_secrets(("pod_template",), self.pod_template)

    def _size_conflicts(self) -> Iterator[Conflict]:
        for name in type(self.resources).model_fields:
            resources = getattr(self.resources, name)
            if resources is None:
                continue
            field = f"resources.{name}"
            if resources.memory_bytes > self.nodes.memory_bytes:
                why = f"{resources.memory} is more than the {self.nodes.memory} of a node (nodes.memory)"
                yield Conflict((f"{field}.memory", "nodes.memory"), why)
            if resources.cpus > self.nodes.cpus:
                why = f"{resources.cpus:g} cores are more than the {self.nodes.cpus:g} of a node (nodes.cpus)"
                yield Conflict((f"{field}.cpus", "nodes.cpus"), why)
            gpus = resources.gpus if isinstance(resources, GpuResources) else 0
            if gpus > (self.nodes.gpus_per_node or 0):
                why = f"{gpus} GPUs are more than the {self.nodes.gpus_per_node or 0} of a node"
                yield Conflict((f"{field}.gpus", "nodes.gpus_per_node"), why)
        whole = self.resources.worker.memory if self.resources.worker else self.nodes.memory
        if self.nodes.shared_memory and to_bytes(self.nodes.shared_memory) >= to_bytes(whole):
            why = f"leaves nothing of a worker's {whole} of memory, which it is part of"
            yield Conflict(("nodes.shared_memory", "nodes.memory"), why, "lower it")

    def _variable_conflicts(self) -> Iterator[Conflict]:
        for section, names in (("environment", list(self.environment)), ("secrets", list(self.secrets))):
            for name in names:
                place = ((section, name),)
                if not re.fullmatch(VARIABLE_PATTERN, name):
                    yield Conflict(place, "is no name of a variable")
                elif _OWN_VARIABLES.fullmatch(name):
                    yield Conflict(place, "the launcher sets this variable itself", "remove it")
        for name in self.environment:
            if names_secret(name):
                yield Conflict(
                    (("environment", name),),
                    "is a secret by its name, and a profile is no place for one",
                    f"remove it, and write secrets: {{{name}: {{secret: NAME, key: {name}}}}}",
                )
            elif name in self.secrets:
                yield Conflict(
                    (("secrets", name), ("environment", name)), "is in environment too", "keep one"
                )

    @property
    def where(self) -> str:
        """In a few words: context and namespace."""
        return f"{self.context or '(current context)'}/{self.namespace}"

    @property
    def store_uri(self) -> str:
        return self.store.rstrip("/")

    @property
    def work_folder(self) -> Path:
        """The folder on this machine for scratch files, absolute."""
        return Path(self.work).expanduser().absolute()

    def store_environment(self, *, in_cluster: bool = False) -> dict[str, str]:
        """The store's settings as variables that the AWS SDK and `artifacts.s3` read, here or in a pod; no
        credentials."""
        endpoint = (self.s3.endpoint_in_cluster if in_cluster else None) or self.s3.endpoint
        return {
            **({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {}),
            "AWS_REGION": self.s3.region,
            "AWS_DEFAULT_REGION": self.s3.region,
            "AWS_RETRY_MODE": "standard",
            "AWS_MAX_ATTEMPTS": str(self.s3.retries),
            "SLIPWAY_S3_CONCURRENCY": str(self.s3.concurrency),
            "SLIPWAY_S3_PART_BYTES": str(to_bytes(self.s3.part_size)),
        }


def _literal_secrets(path: tuple[str | int, ...], value: Any) -> Iterator[Conflict]:
    """Variables of a patch (`{name: …, value: …}`) that are secrets by their names."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and names_secret(name) and value.get("value") is not None:
            yield Conflict(((*path, "value"),), f"{name} is a secret by its name", "use `secrets:`")
        for key, inner in value.items():
            yield from _literal_secrets((*path, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _literal_secrets((*path, index), inner)
