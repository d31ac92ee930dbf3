"""`slipway publish`: what a run has made, to a hub or a bucket."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, Detach, RequiredRun


def publish(
    run: RequiredRun,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="ADDRESS", help="hub://org/name or s3://bucket/prefix.", show_default=False
        ),
    ],
    products: Annotated[
        list[str] | None,
        typer.Option(
            "--product",
            "-p",
            metavar="PRODUCT",
            help="model, adapter, quantized or gguf; may be repeated.",
            show_default="what the run has made",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A hub repository that is made for it is public.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="The card's licence, as apache-2.0.",
            show_default="the base model's, where its card names one",
        ),
    ] = None,
    cluster: ClusterName = "local",
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Put what a run has made where others find it, with a model card.

    Into a repository of the model hub, in one commit (its token comes from HF_TOKEN or `hf auth login`), or a
    bucket. Private unless --public says otherwise. What is there already is not sent again.

    Examples:

      slipway publish support-bot --to hub://my-org/support-bot

      slipway publish support-bot --to s3://models/support-bot --product model --product gguf
    """
    from launcher import record
    from launcher.alone.given import GivenRun
    from launcher.alone.publication import make
    from launcher.commands.follow import attend
    from launcher.commands.options import place_of
    from launcher.commands.starting import start
    from launcher.spec.load import load_cluster
    from launcher.stages.done import is_done

    profile = load_cluster(cluster)
    place = place_of(cluster, profile.value)
    plan = record.load_plan(place.store, record.find(place.store, run))
    given = GivenRun(plan, [stage.kind for stage in plan.stages if is_done(stage, place.store)])
    options = {"to": to, "products": products, "private": not public, "license": licence}
    made = make(given, {name: value for name, value in options.items() if value is not None}, profile)
    attend(place, start(made, place), detach=detach, as_json=as_json)
