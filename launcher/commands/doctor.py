"""`slipway doctor`: is the cluster of a profile ready for jobs?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, Overrides
from launcher.commands.output import say, say_now, show_json

if TYPE_CHECKING:
    from artifacts.contract import Plan
    from launcher.doctor import Check


def doctor(
    job: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOB", help="Also: does this job fit the quota, and can it publish?", show_default=False
        ),
    ] = None,
    cluster: ClusterName = "local",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look whether a cluster is ready for jobs.

    Versions, permissions, Secrets, queue, quota, registry, bucket, GPU nodes, clocks: one line each, with
    the way out where something is wrong. Changes nothing; exit code 3 where something must be mended.

    Example: slipway doctor --cluster prod
    """
    from launcher.errors import EXIT_CLUSTER_ERROR

    found = []
    for check in _checks(cluster, job, overrides):
        found.append(check)
        if not as_json:
            say_now(_line(check))
    failures = sum(check.level == "failure" for check in found)
    if as_json:
        show_json(found)
    elif not failures:
        say("\nready for jobs")
    if failures:
        raise typer.Exit(EXIT_CLUSTER_ERROR)


def _checks(cluster: str, job: Path | None, overrides: list[str] | None) -> Iterator[Check]:
    from launcher.commands.options import place_of
    from launcher.doctor import examine
    from launcher.errors import Problem, UserError
    from launcher.kube import Kube
    from launcher.spec.kubernetes import KubernetesCluster
    from launcher.spec.load import load_cluster
    from launcher.stages.image import CUDA_VERSION

    profile = load_cluster(cluster).value
    if not isinstance(profile, KubernetesCluster):
        why, way_out = "it is this machine: there is nothing to look at", "`slipway plan JOB` says what fits"
        raise UserError(Problem(where="", what=f"cluster {cluster}", why=why, way_out=way_out))
    plan = _plan(job, cluster, overrides) if job else None
    yield from examine(
        profile,
        lambda: Kube.connect(profile.namespace, profile.context),
        place_of(cluster, profile).store,
        wanted=_demand(plan) if plan else None,
        cuda_major=int(CUDA_VERSION.partition(".")[0]),
        publishes=plan is not None and _publishes_to_hub(plan),
    )


def _plan(job: Path, cluster: str, overrides: list[str] | None) -> Plan:
    from launcher.commands.jobs import make_plan

    return make_plan(job, cluster, overrides, rehearse=False, fresh=False)[0]


def _publishes_to_hub(plan: Plan) -> bool:
    return plan.has("publish") and str(plan.stage("publish").params.to).startswith("hub://")


def _demand(plan: Plan) -> dict[str, float]:
    """What the job's training takes. Which images it would run in makes no difference."""
    from launcher.backends.manifest import stage_object
    from launcher.doctor.demand import demand
    from launcher.stages.image import Images

    return demand(stage_object(plan, plan.run_id, plan.stage("train"), Images(pilot="", train="")))


def _line(check: Check) -> str:
    mark = {"ok": "ok      ", "warning": "warning ", "failure": "FAILURE "}[check.level]
    way_out = f"\n        {check.way_out}" if check.way_out else ""
    return f"{mark}{check.what}: {check.found}{way_out}"
