"""Options that several commands share, and the store that they lead to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from artifacts.store import Store
    from launcher.pilots.base import Pilots
    from launcher.spec.cluster import Cluster


@dataclass(frozen=True)
class Place:
    """Where a cluster profile keeps things, and who drives its runs."""

    cluster: str
    store: Store
    pilots: Pilots

    @property
    def option(self) -> str:
        """What a command that is suggested must add to come back to this place."""
        return "" if self.cluster == "local" else f" --cluster {self.cluster}"

    def require_ready(self) -> None:
        """Raises UserError or ClusterError where a run could not be started here."""
        self.pilots.require_ready()


def open_place(cluster: str) -> Place:
    """Raises UserError for a profile that can't be read."""
    from launcher.spec.load import load_cluster

    return place_of(cluster, load_cluster(cluster).value)


def place_of(cluster: str, profile: Cluster) -> Place:
    """The place of a profile: the one choice between this machine and a cluster."""
    from artifacts.store import open_store
    from launcher.spec.cluster import LocalCluster

    os.environ.update(profile.store_environment())
    store = open_store(profile.store_uri)
    if isinstance(profile, LocalCluster):
        from launcher.pilots.local import LocalPilots

        return Place(cluster, store, LocalPilots(cluster, store, profile.work_folder))
    from launcher.pilots.kubernetes import KubernetesPilots

    return Place(cluster, store, KubernetesPilots(cluster, store, profile))


def complete_run(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Run ids of the cluster that the command line names."""
    from launcher.record import run_ids

    place = open_place(context.params.get("cluster") or "local")
    yield from (run_id for run_id in run_ids(place.store) if run_id.startswith(incomplete))


def _complete_cluster(incomplete: str) -> Iterator[str]:
    from launcher.spec.load import list_clusters

    yield from (name for name in list_clusters() if name.startswith(incomplete))


JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).", show_default=False)]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster",
        "-c",
        metavar="NAME",
        envvar="SLIPWAY_CLUSTER",
        help="Cluster profile: a name in clusters/, or a file.",
        autocompletion=_complete_cluster,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the job; may be repeated.",
        show_default=False,
    ),
]
Rehearse = Annotated[
    bool,
    typer.Option("--rehearse", help="Same code path with a tiny model, a few records and steps."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Train again on purpose, as a new run; data and tokens are kept.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return at once; the run goes on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
RunName = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Run id, the beginning of one, or a job's name (its newest run). Left out: the newest run.",
        autocompletion=complete_run,
        show_default=False,
    ),
]
RequiredRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run id, the beginning of one, or a job's name (its newest run).",
        autocompletion=complete_run,
        show_default=False,
    ),
]
