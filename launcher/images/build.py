"""Makes the images of a plan: looks them up, builds and pushes what is missing, writes their references down.

The tag is the stage's key, the digest of everything that goes in: an image that the registry has under its
tag is never built again, whoever built it.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

from artifacts.contract import ImageParams, StagePlan
from artifacts.manifest import ArtifactWriter
from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.images import builders, command
from launcher.images.builders import Builder, Target
from launcher.images.command import Say
from launcher.images.context import WHEELS, build_context, settle
from launcher.images.flash_attention import Wheel, wheel_of
from launcher.images.registry import find_digest
from launcher.images.wheels import fetch_wheel, keep_wheel
from launcher.names import SHORT_KEY_DIGITS
from launcher.spec.kubernetes import KubernetesCluster
from launcher.stages.code import ROOT
from launcher.stages.image import PYTHON, Images, read_images

TARGETS = ("pilot", "train")


@dataclasses.dataclass(frozen=True)
class Builds:
    """One build: where it happens, and who is told. `work` is the profile's folder for scratch files."""

    stage: StagePlan
    cluster: KubernetesCluster
    store: Store
    say: Say
    root: Path = ROOT

    @property
    def params(self) -> ImageParams:
        params: ImageParams = self.stage.params
        return params

    @property
    def log(self) -> Path:
        return self.cluster.work_folder / "images" / f"{self.stage.key[:SHORT_KEY_DIGITS]}.log"

    def tag(self, target: str) -> str:
        return f"{self.params.repository}:{target}-{self.stage.key[:SHORT_KEY_DIGITS]}"

    def digest(self, reference: str) -> str | None:
        return find_digest(reference, insecure=self.cluster.image.insecure)


def build_images(
    stage: StagePlan, cluster: KubernetesCluster, store: Store, say: Say, root: Path = ROOT
) -> Images:
    """The images of `stage`, in the registry and with its marker in the store when this returns.

    `say` gets the builder's output line by line. Raises ClusterError where a build or push fails, or the
    registry can't be asked.
    """
    build = Builds(stage, cluster, store, say, root)
    known = read_images(store, stage)
    if known is not None and _are_there(build, known):
        return known
    if build.params.given is not None:
        return _commit(build, Images(pilot=build.params.given, train=build.params.given))
    missing = [target for target in TARGETS if build.digest(build.tag(target)) is None]
    if missing:
        _build(build, missing)
    digests = {target: build.digest(build.tag(target)) for target in TARGETS}
    if lost := [build.tag(target) for target, digest in digests.items() if digest is None]:
        why = "the registry does not have it after the push"
        raise ClusterError(lost[0], why, "check that image.registry names one registry here and on the nodes")
    return _commit(build, Images(**{t: f"{build.params.repository}@{digests[t]}" for t in TARGETS}))


def _are_there(build: Builds, images: Images) -> bool:
    """Whether the registry still has both. One that can't be asked from here is taken at the store's word:
    what counts is what the nodes can pull."""
    try:
        return all(build.digest(reference) for reference in {images.pilot, images.train})
    except ClusterError as error:
        build.say(f"{error}; going on with the images that the store names")
        return True


def _build(build: Builds, targets: list[str]) -> None:
    builder: Builder = build.cluster.image.builder  # type: ignore[assignment]  # not "none": nothing is given
    build.log.unlink(missing_ok=True)
    with build_context(build.root) as context:
        if build.params.flash_attention:
            _add_flash_attention(build, builder, context)
        settle(context)
        for name in targets:
            started_s = time.monotonic()
            target = _target(build, name, context, {"BASE": build.params.base})
            for words in builders.push_commands(builder, target, build.tag(name)):
                command.run(words, build.log, build.say, f"image {build.tag(name)}")
            build.say(f"{build.tag(name)}: built and pushed in {time.monotonic() - started_s:.0f} s")


def _add_flash_attention(build: Builds, builder: Builder, context: Path) -> None:
    """Put the wheel into the context: the store's, or, once for each combination, one that is compiled."""
    wheel = wheel_of(build.root, PYTHON, build.params.architectures)
    if fetch_wheel(build.store, wheel, context / WHEELS) is None:
        _compile(build, builder, context, wheel)
    build.say(f"flash-attention {wheel.version}: {wheel.prefix}")


def _compile(build: Builds, builder: Builder, context: Path, wheel: Wheel) -> None:
    build.say(f"compiling flash-attention {wheel.version} for {wheel.architectures}: this takes an hour")
    settle(context)
    arguments = {"BASE": build.params.base, "ARCHITECTURES": " ".join(build.params.architectures)}
    target = _target(build, "flash-attention-wheel", context, arguments)
    output = build.cluster.work_folder / "images" / f"wheel-{wheel.key[:SHORT_KEY_DIGITS]}"
    shutil.rmtree(output, ignore_errors=True)
    words = builders.export_command(builder, target, str(output))
    command.run(words, build.log, build.say, "flash-attention")
    keep_wheel(build.store, wheel, output)
    fetch_wheel(build.store, wheel, context / WHEELS)
    shutil.rmtree(output)


def _target(build: Builds, name: str, context: Path, arguments: dict[str, str]) -> Target:
    image = build.cluster.image
    return Target(
        name=name,
        context=str(context),
        arguments=arguments,
        options=image.builder_options,
        insecure=image.insecure,
    )


def _commit(build: Builds, images: Images) -> Images:
    facts = {"made_s": round(time.time()), "params": dataclasses.asdict(build.params)}
    ArtifactWriter(build.store, build.stage.output).commit(**dataclasses.asdict(images), **facts)
    return images
