"""What a cluster profile says of the services around the cluster: object storage and the image registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launcher.spec.grammar import (
    CAPABILITY_PATTERN,
    DIGEST_REFERENCE_PATTERN,
    ENDPOINT_PATTERN,
    REPOSITORY_PATTERN,
    TAGGED_REFERENCE_PATTERN,
    Label,
    Memory,
)
from launcher.spec.section import Conflict, Section
from launcher.spec.units import to_bytes

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
    gguf: bool = Field(
        False,
        description="Compile llama.cpp into it, for the stage `gguf`: minutes, once. With builder `none`: "
        "the given image has it.",
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
