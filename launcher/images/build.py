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
from launcher.images import builders, command, flash_attention, llama_cpp
from launcher.images.builders import Builder, Target
from launcher.images.command import Say
from launcher.images.context import WHEELS, build_context, settle
from launcher.images.registry import find_digest
from launcher.images.wheels import Wheel, fetch_wheels, keep_wheels
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
        if build.params.gguf:
            _add_llama_cpp(build, builder, context)
        settle(context)
        for name in targets:
            started_s = time.monotonic()
            target = _target(build, name, context, {"BASE": build.params.base})
            for words in builders.push_commands(builder, target, build.tag(name)):
                command.run(words, build.log, build.say, f"image {build.tag(name)}")
            build.say(f"{build.tag(name)}: built and pushed in {time.monotonic() - started_s:.0f} s")


def _add_flash_attention(build: Builds, builder: Builder, context: Path) -> None:
    wheel = flash_attention.wheel_of(build.root, PYTHON, build.params.architectures)
    arguments = {"ARCHITECTURES": " ".join(build.params.architectures)}
    about = f"{wheel.name} {wheel.version} for {wheel.architectures}: this takes an hour"
    _add_wheels(build, builder, context, wheel, arguments, about)


def _add_llama_cpp(build: Builds, builder: Builder, context: Path) -> None:
    """llama.cpp's wheels, and the lock of what they need beside the image's libraries."""
    wheel = llama_cpp.wheel_of(build.root, build.params.base)
    about = f"{wheel.name} {wheel.version}: this takes about 4 minutes of two cores"
    _add_wheels(build, builder, context, wheel, {}, about)
    _, others = llama_cpp.split_lock((build.root / "requirements/gguf.lock").read_text())
    (context / WHEELS / "gguf.lock").write_text(others)


def _add_wheels(
    build: Builds, builder: Builder, context: Path, wheel: Wheel, arguments: dict[str, str], about: str
) -> None:
    """Put the wheels into the context: the store's, or, once for each combination, what is compiled."""
    if not fetch_wheels(build.store, wheel, context / WHEELS):
        build.say(f"compiling {about}")
        _compile(build, builder, context, wheel, {"BASE": build.params.base, **arguments})
    build.say(f"{wheel.name} {wheel.version}: {wheel.prefix}")


def _compile(build: Builds, builder: Builder, context: Path, wheel: Wheel, arguments: dict[str, str]) -> None:
    settle(context)
    target = _target(build, f"{wheel.name}-wheel", context, arguments)
    output = build.cluster.work_folder / "images" / f"wheel-{wheel.key[:SHORT_KEY_DIGITS]}"
    shutil.rmtree(output, ignore_errors=True)
    words = builders.export_command(builder, target, str(output))
    command.run(words, build.log, build.say, wheel.name)
    keep_wheels(build.store, wheel, output)
    fetch_wheels(build.store, wheel, context / WHEELS)
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
