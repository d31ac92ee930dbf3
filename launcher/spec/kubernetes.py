"""The cluster profile of a Kubernetes cluster with KubeRay, declared once as the job is.

Secrets are named, never held: what a profile says may stand in a plan, a manifest and a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from artifacts.redact import names_secret
from launcher.spec.grammar import (
    CAPABILITY_PATTERN,
    DIGEST_REFERENCE_PATTERN,
    ENDPOINT_PATTERN,
    REPOSITORY_PATTERN,
    S3_URI_PATTERN,
    SECRET_KEY_PATTERN,
    SUBDOMAIN_PATTERN,
    TAGGED_REFERENCE_PATTERN,
    VARIABLE_PATTERN,
    Label,
    Memory,
    annotation_conflicts,
    label_conflicts,
)
from launcher.spec.nodes import Cache, Nodes, StageResources
from launcher.spec.section import Conflict, Section
from launcher.spec.units import to_bytes

#: Kueue's label; `queue.kueue` writes it where it belongs.
KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
#: Variables that manifests set themselves.
_OWN_VARIABLES = re.compile(
    r"SLIPWAY_\w+|RAY_\w+|AWS_ENDPOINT_URL(_S3)?|AWS_(DEFAULT_)?REGION|AWS_RETRY_MODE|AWS_MAX_ATTEMPTS|"
    r"PYTHONPATH|PATH|HOME|NODE_NAME|POD_NAME"
)
#: S3's smallest part of a multipart upload (AWS, Amazon S3 multipart upload limits).
_MIN_PART_BYTES = 5 * 2**20


class S3(Section):
    """How the store's bucket is reached. Credentials: in pods those of `secret`, or of the service accounts'
    workload identity; on this machine those that the AWS SDK finds (AWS_* variables, ~/.aws, SSO)."""

    endpoint: str | None = Field(
        None, pattern=ENDPOINT_PATTERN, description="Address of the service. Left out: AWS."
    )
    endpoint_in_cluster: str | None = Field(
        None, pattern=ENDPOINT_PATTERN, description="The same as pods reach it. Left out: `endpoint`."
    )
    region: str = Field("us-east-1", min_length=1, description="Region of the bucket.")
    secret: Label | None = Field(
        None,
        description="Secret in the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Left out: "
        "workload identity of `service_account` and `pilot_service_account`.",
    )
    retries: int = Field(8, ge=1, le=50, description="Attempts of one request, with growing pauses.")
    concurrency: int = Field(8, ge=1, le=64, description="Requests at a time, of one process.")
    part_size: Memory = Field("16Mi", description="Size of the parts of a large file, 5Mi or more.")

    def conflicts(self) -> Iterator[Conflict]:
        if to_bytes(self.part_size) < _MIN_PART_BYTES:
            yield Conflict(("part_size",), "S3 takes parts of 5Mi or more", "use 16Mi")
        if self.endpoint_in_cluster is not None and self.endpoint is None:
            yield Conflict(("endpoint_in_cluster",), "says nothing of this machine", "add endpoint")


class Image(Section):
    """The image that every stage runs in: built here and pushed, or given."""

    registry: str | None = Field(
        None,
        pattern=REPOSITORY_PATTERN,
        description="Where images are pushed and pulled, without a tag, as `registry.example.com/ml`. "
        "Required unless `builder` is `none`.",
    )
    insecure: bool = Field(False, description="The registry speaks plain HTTP.")
    builder: Literal["docker", "podman", "buildah", "none"] = Field(
        "docker", description="What builds (docker: its buildx). `none`: `name` is there already."
    )
    builder_options: list[str] = Field(
        [], description="More options of the builder's build command, as `[--network, host]`."
    )
    name: str | None = Field(
        None,
        pattern=DIGEST_REFERENCE_PATTERN,
        description="With builder `none`: the image, by digest (`…@sha256:…`). Left out: it is built.",
    )
    base: str | None = Field(
        None,
        pattern=TAGGED_REFERENCE_PATTERN,
        description="Image to start from, by tag or digest. Left out: NVIDIA's CUDA image, or Debian for "
        "nodes without GPUs.",
    )
    flash_attention: bool | None = Field(
        None, description="Compile flash-attention into it. Left out: where the nodes have GPUs."
    )
    architectures: list[Annotated[str, Field(pattern=CAPABILITY_PATTERN)]] = Field(
        [], description='CUDA compute capabilities to compile for, as `["9.0"]`. Left out: of `nodes.gpu`.'
    )
    pull_secrets: list[Label] = Field(
        [], description="Secrets in the namespace to pull with (kubernetes.io/dockerconfigjson)."
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.builder == "none":
            if self.name is None:
                yield Conflict(
                    ("builder", "name"),
                    "nothing builds an image, and none is given",
                    "add name: IMAGE@sha256:…, or choose a builder",
                )
            for field in ("builder_options", "base", "flash_attention", "architectures"):
                if getattr(self, field) not in (None, []):
                    yield Conflict(
                        (field, "builder"), "only goes with a builder, and it is none", "remove it"
                    )
        else:
            if self.name is not None:
                yield Conflict(
                    ("name", "builder"),
                    f"{self.builder} builds the image, so none can be given",
                    "remove it, or write builder: none",
                )
            if self.registry is None:
                yield Conflict(
                    ("registry", "builder"),
                    f"{self.builder} has nowhere to push the image",
                    "add registry: registry.example.com/ml, or builder: none and name: IMAGE@sha256:…",
                )
        if self.base is not None and self.base.endswith(":latest"):
            yield Conflict(("base",), "latest is another image tomorrow", "name a version or a digest")


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
