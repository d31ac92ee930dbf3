"""How each builder is asked to build, push and export: command lines as pure functions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Builder = Literal["docker", "podman", "buildah"]

DOCKERFILE = "images/Dockerfile"
#: Times of all files in a layer: with them two builds of one thing have the same layers. 1980, the oldest
#: that zip archives (wheels) can hold.
EPOCH_S = 315532800
#: What nodes run on; the locks' CUDA libraries are those of this platform.
PLATFORM = "linux/amd64"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target of the Dockerfile. `options` are the user's, for the build command; `context` the folder
    with everything that goes in."""

    name: str
    context: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    insecure: bool = False  # the registry speaks plain HTTP


def push_commands(
    builder: Builder, target: Target, reference: str, machine: str = platform.machine()
) -> list[list[str]]:
    """Build the target, and push it as `reference` (`registry/name:tag`).

    docker pushes while it builds, in whatever format its driver has. The others push layers compressed with
    zstd, which a node unpacks several times as fast as gzip (containerd 1.5 and later can).
    """
    insecure = ["--tls-verify=false"] if target.insecure else []
    if builder == "docker":
        output = f"type=image,name={reference},push=true" + (
            ",registry.insecure=true" if target.insecure else ""
        )
        return [[*_build(builder, target, machine), "--output", output, *_rest(target)]]
    compression = ["--compression-format", "zstd", "--compression-level", "3"]
    return [
        [*_build(builder, target, machine), "--tag", reference, *_rest(target)],
        [builder, "push", *compression, *insecure, reference, f"docker://{reference}"],
    ]


def export_command(
    builder: Builder, target: Target, folder: str, machine: str = platform.machine()
) -> list[str]:
    """Build the target, and write its files to `folder` here."""
    output = ["--output", f"type=local,dest={folder}"]
    return [*_build(builder, target, machine), *output, *_rest(target)]


def _build(builder: Builder, target: Target, machine: str) -> list[str]:
    start = {
        # Without provenance the pushed reference is the image itself, not a list that holds it.
        "docker": ["docker", "buildx", "build", "--progress", "plain", "--provenance", "false"],
        "podman": ["podman", "build", "--format", "oci", "--layers", "--timestamp", str(EPOCH_S)],
        "buildah": ["buildah", "build", "--format", "oci", "--layers", "--timestamp", str(EPOCH_S)],
    }[builder]
    foreign = machine.lower() not in ("x86_64", "amd64")
    named = any(option.startswith("--platform") for option in target.options)
    arguments = {**target.arguments, **({"SOURCE_DATE_EPOCH": str(EPOCH_S)} if builder == "docker" else {})}
    return [
        *start,
        *(["--platform", PLATFORM] if foreign and not named else []),
        *(["--tls-verify=false"] if target.insecure and builder != "docker" else []),
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *("--target", target.name, "--file", f"{target.context}/{DOCKERFILE}"),
    ]


def _rest(target: Target) -> list[str]:
    return [*target.options, target.context]
