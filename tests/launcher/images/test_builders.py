"""Command lines of the builders, whole."""

from __future__ import annotations

import dataclasses

import pytest

from launcher.images.builders import Builder, Target, export_command, push_commands

TARGET = Target(name="train", context="/c", arguments={"BASE": "debian:12"}, options=["--network", "host"])
REFERENCE = "registry.example.com/ml:train-0123456789ab"
SAME = "--build-arg BASE=debian:12 --target train --file /c/images/Dockerfile"


def lines(builder: Builder, target: Target = TARGET, machine: str = "x86_64") -> list[str]:
    return [" ".join(command) for command in push_commands(builder, target, REFERENCE, machine)]


def test_docker_pushes_while_it_builds() -> None:
    assert lines("docker") == [
        "docker buildx build --progress plain --provenance false --build-arg BASE=debian:12 "
        "--build-arg SOURCE_DATE_EPOCH=315532800 --target train --file /c/images/Dockerfile "
        f"--output type=image,name={REFERENCE},push=true --network host /c"
    ]


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_podman_and_buildah_push_layers_that_unpack_fast(builder: Builder) -> None:
    assert lines(builder) == [
        f"{builder} build --format oci --layers --timestamp 315532800 {SAME} --tag {REFERENCE} "
        "--network host /c",
        f"{builder} push --compression-format zstd --compression-level 3 {REFERENCE} docker://{REFERENCE}",
    ]


def test_a_registry_of_plain_http() -> None:
    target = dataclasses.replace(TARGET, insecure=True)
    (docker,) = lines("docker", target)
    assert f"name={REFERENCE},push=true,registry.insecure=true" in docker
    build, push = lines("buildah", target)
    assert "--tls-verify=false" in build and "--tls-verify=false" in push


def test_a_laptop_of_another_kind_builds_for_the_nodes() -> None:
    assert "--platform linux/amd64" in lines("docker", machine="arm64")[0]
    own = dataclasses.replace(TARGET, options=["--platform=linux/arm64"])
    assert lines("docker", own, "arm64")[0].count("--platform") == 1


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_exports_files(builder: Builder) -> None:
    command = " ".join(export_command(builder, TARGET, "/out", "x86_64"))
    assert command.endswith("--output type=local,dest=/out --network host /c") and "push" not in command
