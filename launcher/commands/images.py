"""Commands about container images: image build, image ls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from launcher.commands.options import AsJson, ClusterName
from launcher.commands.output import columns, remark, say, show_json, when

if TYPE_CHECKING:
    from launcher.spec.kubernetes import KubernetesCluster

app = typer.Typer(help="Build the images that stages run in, and list them.", no_args_is_help=True)


@app.callback()
def image() -> None:
    """Build the images that stages run in, and list them."""


@app.command()
def build(cluster: ClusterName = "local", as_json: AsJson = False) -> None:
    """Build and push the images of this code, unless the registry has them.

    `submit` and `stage` do the same. The tag is a digest of everything that goes in: locks, Dockerfile, code.

    Example: slipway image build --cluster prod
    """
    from dataclasses import asdict

    from artifacts.store import open_store
    from launcher.digests import Digests
    from launcher.images.build import build_images
    from launcher.plan import DIGESTS
    from launcher.stages import image
    from launcher.stages.code import CodeDigests

    profile = _profile(cluster)
    digests = Digests(profile.work_folder / DIGESTS)
    stage = image.plan(image.params(profile), CodeDigests(digests))
    digests.save()
    images = build_images(stage, profile, open_store(profile.store_uri), remark)
    if as_json:
        show_json({"key": stage.key, **asdict(images)})
    else:
        say(f"pilot  {images.pilot}\ntrain  {images.train}")


@app.command("ls")
def list_images(cluster: ClusterName = "local", as_json: AsJson = False) -> None:
    """List the images that the store knows, newest first, and what went into them.

    Example: slipway image ls --cluster prod
    """
    from artifacts.store import open_store
    from launcher.images.listing import list_images as find

    found = find(open_store(_profile(cluster).store_uri))
    if as_json:
        show_json(found)
        return
    rows = [
        [image.key[:12], when(image.made_s), image.content, name, reference]
        for image in found
        for name, reference in (("pilot", image.pilot), ("train", image.train))
    ]
    say(columns(rows, ["KEY", "MADE", "FROM", "IMAGE", "REFERENCE"]) if rows else "no images yet")


def _profile(cluster: str) -> KubernetesCluster:
    import os

    from launcher.errors import Problem, UserError
    from launcher.spec.kubernetes import KubernetesCluster
    from launcher.spec.load import load_cluster

    profile = load_cluster(cluster).value
    if not isinstance(profile, KubernetesCluster):
        why = "its stages run as processes here, in no image"
        way_out = "name a Kubernetes cluster (slipway clusters)"
        raise UserError(Problem(where="", what=f"--cluster {cluster}", why=why, way_out=way_out))
    os.environ.update(profile.store_environment())
    return profile
