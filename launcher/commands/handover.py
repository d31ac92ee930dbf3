"""Commands that bring a job to a cluster without starting it: stage, render."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.commands.jobs import make_plan
from launcher.commands.options import AsJson, ClusterName, Fresh, JobFile, Overrides, Rehearse
from launcher.commands.output import remark, say, show_json, to_yaml


def stage(
    job: JobFile,
    cluster: ClusterName = "local",
    overrides: Overrides = None,
    rehearse: Rehearse = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Bring to a cluster what only this machine has.

    Builds and pushes the image, checks the data and uploads it with the model folder, as far as they are not
    there. Starts nothing: `slipway render` then prints what does.

    Example: slipway stage support-bot.yaml --cluster prod
    """
    from launcher import record
    from launcher.commands.follow import stage_shown
    from launcher.commands.starting import require_publishable

    made, place = make_plan(job, cluster, overrides, rehearse=rehearse, fresh=fresh)
    place.pilots.require_cluster("stage")
    place.require_ready()
    require_publishable(made, place)
    record.create(place.store, made, made.run_id)
    stage_shown(place, made, made.run_id)
    if as_json:
        return show_json({"run": made.run_id, "state": "staged"})
    remark(f"{made.run_id} is staged on {place.cluster}")
    say(f"slipway render {job}{place.option} | kubectl apply -f -")


def render(
    job: JobFile,
    cluster: ClusterName = "local",
    overrides: Overrides = None,
    rehearse: Rehearse = False,
    stage: Annotated[
        str | None,
        typer.Option("--stage", "-s", metavar="STAGE", help="Only what carries out this stage, as `train`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what submitting the job would apply to a cluster.

    YAML for `kubectl apply -f -`, which then does all that `slipway submit` does. Always the same for the
    same job, profile and image.

    Examples:

      slipway render support-bot.yaml --cluster prod | kubectl apply -f -

      slipway render support-bot.yaml --cluster prod --stage train
    """
    made, place = make_plan(job, cluster, overrides, rehearse=rehearse, fresh=False)
    objects = place.pilots.objects(made, made.run_id, stage)
    if as_json:
        return show_json(objects)
    say(to_yaml(objects))
