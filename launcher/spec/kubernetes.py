"""The cluster profile of a Kubernetes cluster with KubeRay, declared once as the job is.

Secrets are named, never held: what a profile says may stand in a plan, a manifest and a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from launcher.spec.section import Conflict, Section
from launcher.spec.units import MEMORY_PATTERN, to_bytes

#: A DNS-1123 label: names of namespaces, Secrets, service accounts.
LABEL_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
S3_URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?$"

Memory = Annotated[str, Field(pattern=MEMORY_PATTERN)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]


class S3(Section):
    """How the store's bucket is reached. Credentials: in pods those of `secret`, or of the service account's
    workload identity; on this machine those that the AWS SDK finds (AWS_* variables, ~/.aws, SSO)."""

    endpoint: str | None = Field(None, description="Address of the service. Left out: AWS.")
    endpoint_in_cluster: str | None = Field(
        None, description="The same as pods reach it. Left out: `endpoint`."
    )
    region: str = Field("us-east-1", description="Region of the bucket.")
    secret: Label | None = Field(
        None,
        description="Secret in the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Left out: "
        "workload identity of `service_account`.",
    )
    retries: int = Field(8, ge=1, le=50, description="Attempts of one request, with growing pauses.")
    concurrency: int = Field(8, ge=1, le=64, description="Requests at a time.")
    part_size: Memory = Field("16Mi", description="Size of the parts of a large file.")


class Image(Section):
    """The image that every stage runs in: built here and pushed, or given."""

    registry: str | None = Field(
        None, description="Where images are pushed, without a tag, as `registry.example.com/ml`."
    )
    insecure: bool = Field(False, description="The registry speaks plain HTTP.")
    builder: Literal["docker", "podman", "buildah", "none"] = Field(
        "docker", description="What builds. `none`: `name` is there already."
    )
    builder_options: list[str] = Field([], description="More options of the builder's build command.")
    name: str | None = Field(None, description="With builder `none`: the image, by digest (`…@sha256:…`).")
    base: str | None = Field(
        None, description="Image to start from. Left out: NVIDIA's CUDA image, or Debian for CPU clusters."
    )
    flash_attention: bool | None = Field(
        None, description="Compile flash-attention into it. Left out: where the nodes have GPUs."
    )
    architectures: list[Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")]] = Field(
        [], description="CUDA compute capabilities to compile for. Left out: that of `nodes.gpu`."
    )
    pull_secrets: list[Label] = Field([], description="Secrets to pull with.")


class Nodes(Section):
    """The nodes that train: their size, and which ones they are."""

    gpu: str | None = Field(
        None, description="GPU type of the catalog, as `H100-80GB`. Left out: a cluster without GPUs."
    )
    gpus_per_node: int = Field(0, ge=0, le=16, description="GPUs of one node.")
    count: int | None = Field(
        None, ge=1, description="Most nodes that one job may take. Left out: no limit of ours."
    )
    cpus: float = Field(gt=0, description="Cores of one node that pods may request.")
    memory: Memory = Field(description="Memory of one node that pods may request, as `900Gi`.")
    selector: dict[str, str] = Field({}, description="Labels that the nodes of workers carry.")
    tolerations: list[dict[str, Any]] = Field([], description="Taints of these nodes that workers bear.")
    topology_key: str = Field(
        "kubernetes.io/hostname", description="Label by which workers are spread (or kept together)."
    )
    shared_memory: Memory = Field("16Gi", description="/dev/shm of a worker pod; counts as its memory.")
    network: Literal["none", "efa", "rdma"] = Field(
        "none", description="Preset of RDMA resources and NCCL variables."
    )
    nccl: dict[str, str] = Field({}, description="More NCCL variables, as `NCCL_SOCKET_IFNAME: eth0`.")


class Resources(Section):
    """What one container may use; requests equal limits."""

    cpus: float = Field(gt=0)
    memory: Memory = Field()

    @property
    def memory_bytes(self) -> int:
        return to_bytes(self.memory)


class StageResources(Section):
    """Pods beside the workers."""

    pilot: Resources = Field(Resources(cpus=0.5, memory="1Gi"))
    head: Resources = Field(Resources(cpus=2, memory="6Gi"))
    model: Resources = Field(Resources(cpus=2, memory="4Gi"))
    prepare: Resources = Field(Resources(cpus=2, memory="4Gi"))
    merge: Resources = Field(Resources(cpus=2, memory="8Gi"))
    predict: Resources = Field(Resources(cpus=2, memory="8Gi"))
    worker: Resources | None = Field(None, description="One worker pod. Left out: its share of a node.")


class Queue(Section):
    """Who admits pods together."""

    kueue: Label | None = Field(None, description="Kueue's LocalQueue in the namespace.")
    scheduler_name: str | None = Field(None, description="`schedulerName` of all pods.")
    priority_class: str | None = Field(None, description="Priority class of workers.")


class Limits(Section):
    """Ends of what takes too long, in seconds."""

    train_s: int = Field(7 * 24 * 3600, ge=60, description="One training, with its restarts.")
    stage_s: int = Field(24 * 3600, ge=60, description="Any other stage.")
    pending_s: int = Field(24 * 3600, ge=30, description="Waiting for nodes.")
    grace_s: int = Field(120, ge=5, le=3600, description="From a request to stop to the end of a pod.")
    keep_s: int = Field(3600, ge=0, description="How long ended pods stay.")


class Cache(Section):
    """Where workers keep inputs read from the store, on their node."""

    size: Memory = Field("200Gi")
    claim: Label | None = Field(None, description="PersistentVolumeClaim. Left out: an emptyDir.")
    host_path: str | None = Field(None, description="Folder of the node, shared by pods and runs.")


class SecretKey(Section):
    secret: Label = Field()
    key: str = Field()


class KubernetesCluster(Section):
    """A Kubernetes cluster with the KubeRay operator."""

    backend: Literal["kubernetes"] = Field(description="Where stages run.", examples=["kubernetes"])
    context: str | None = Field(None, description="kubectl context. Left out: the current one.")
    namespace: Label = Field("slipway", description="Namespace of everything that is made.")
    store: str = Field(pattern=S3_URI_PATTERN, description="`s3://bucket/prefix` of the object store.")
    work: str = Field(".slipway/work", min_length=1, description="Folder here for scratch files.")
    s3: S3 = Field(S3())
    image: Image = Field(Image())
    nodes: Nodes = Field()
    resources: StageResources = Field(StageResources())
    queue: Queue = Field(Queue())
    limits: Limits = Field(Limits())
    cache: Cache = Field(Cache())
    service_account: Label = Field("slipway-stage", description="Of stages and workers.")
    pilot_service_account: Label = Field("slipway-pilot", description="Of the pilot, which starts them.")
    environment: dict[str, str] = Field({}, description="Variables of all stages, as `HF_ENDPOINT`.")
    secrets: dict[str, SecretKey] = Field({}, description="Variables from Secrets, as `HF_TOKEN`.")
    network_policy: bool = Field(True, description="A policy that lets a run's pods talk to each other only.")
    labels: dict[str, str] = Field({}, description="More labels of everything that is made.")
    annotations: dict[str, str] = Field({}, description="More annotations.")
    pod_template: dict[str, Any] = Field(
        {}, description="Patch (JSON merge) of every pod template, for what is not foreseen here."
    )

    def conflicts(self) -> Iterator[Conflict]:
        if (self.image.builder == "none") != (self.image.name is not None):
            yield Conflict(("image.name", "image.builder"), "an image is given with builder none", "")

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
