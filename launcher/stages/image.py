"""Stage `image`: the container images that every other stage of a plan runs in, where it runs in containers.

Its key stands for all that goes in: the locks, the Dockerfile with its scripts, the parameters, and the code
of artifacts/, launcher/ and train/ without comments. No other stage has it among its inputs: an image decides
how code is run, not what it makes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from artifacts.contract import ImageParams, StageKind, StagePlan
from artifacts.manifest import read_marker
from artifacts.store import Store
from launcher import catalog
from launcher.errors import Problem, UserError
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.keys import CodeDigest, stage, stage_key

#: CUDA of NVIDIA's images: the minor version that the locked torch is built for (`cuda-toolkit` in
#: train.lock), of which torch's wheels bring every library. `images/Dockerfile` compiles with the same.
CUDA_VERSION = "13.2.1"
#: Holds what the node's driver asks of an image, and no library twice: 0.1 GB, its `runtime` has 2 GB more.
CUDA_BASE = f"docker.io/nvidia/cuda:{CUDA_VERSION}-base-ubuntu24.04"
#: Python of Ubuntu 24.04, which flash-attention is compiled for.
PYTHON = "3.12"
PLAIN_BASE = "docker.io/library/debian:12-slim"
#: Oldest GPUs that flash-attention 2 runs on (its README: Ampere and later).
FLASH_ATTENTION_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Images:
    """References by digest (`registry/name@sha256:…`): of the launcher alone, and of everything."""

    pilot: str
    train: str


def params(cluster: KubernetesCluster) -> ImageParams:
    """What the profile asks for, with what it leaves open filled in. Raises UserError."""
    image, nodes = cluster.image, cluster.nodes
    if image.name is not None:
        return ImageParams(given=image.name)
    assert image.registry is not None  # a rule of the profile
    gpu = catalog.find(nodes.gpu) if nodes.gpu else None
    found = ["{}.{}".format(*gpu.compute_capability)] if gpu else []
    architectures = sorted({*(image.architectures or found)}, key=capability)
    usable = [name for name in architectures if capability(name) >= FLASH_ATTENTION_CAPABILITY]
    flash_attention = bool(usable) if image.flash_attention is None else image.flash_attention
    if flash_attention and not usable:
        why = "flash-attention needs GPUs of compute capability 8.0 or newer"
        way_out = "set image.architectures, or image.flash_attention: false"
        raise UserError(Problem(where="", what="image.flash_attention", why=why, way_out=way_out))
    registry = image.registry.rstrip("/")
    return ImageParams(
        repository=registry if "/" in registry else f"{registry}/slipway",
        base=image.base or (CUDA_BASE if nodes.gpu else PLAIN_BASE),
        flash_attention=flash_attention,
        architectures=usable if flash_attention else [],
        gguf=image.gguf,
    )


def plan(params: ImageParams, code: CodeDigest) -> StagePlan:
    """The stage. A given image is what it is, whatever code lies here."""
    made = params.given is None
    key = stage_key(StageKind.IMAGE, code(StageKind.IMAGE) if made else "", {}, dataclasses.asdict(params))
    return stage(StageKind.IMAGE, key, {}, params)


def read_images(store: Store, stage: StagePlan) -> Images | None:
    """The images of a complete stage; None where it is not."""
    manifest = read_marker(store, stage.output)
    if manifest is None:
        return None
    return Images(pilot=manifest.facts["pilot"], train=manifest.facts["train"])


def capability(name: str) -> tuple[int, int]:
    """A compute capability as NVIDIA writes it ("9.0"), as numbers."""
    major, _, minor = name.partition(".")
    return int(major), int(minor)
