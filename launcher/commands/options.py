"""Options that several commands share, and the store that they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from artifacts.store import Store


@dataclass(frozen=True)
class Place:
    """Where a cluster profile keeps things."""

    cluster: str
    store: Store
    work: Path

    def require_writable(self) -> None:
        """Raises UserError where the store or the work folder can't be written."""
        import tempfile

        from launcher.errors import Problem, UserError

        for field, folder in (("store", self.store.local_path("")), ("work", self.work)):
            if folder is None:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                what, why = f"{field} {folder}", f"can't be written: {(error.strerror or str(error)).lower()}"
                way_out = f"name another folder in the profile of cluster {self.cluster}"
                raise UserError(Problem(where="", what=what, why=why, way_out=way_out)) from error


def open_place(cluster: str) -> Place:
    """Raises UserError for a profile that can't be read."""
    from artifacts.store import open_store
    from launcher.spec.load import load_cluster

    profile = load_cluster(cluster).value
    return Place(cluster, open_store(profile.store_uri), profile.work_folder)


def _complete_run(context: typer.Context, incomplete: str) -> Iterator[str]:
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
RunName = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Run id, the beginning of one, or a job's name (its newest run). Left out: the newest run.",
        autocompletion=_complete_run,
        show_default=False,
    ),
]
RequiredRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run id, the beginning of one, or a job's name (its newest run).",
        autocompletion=_complete_run,
        show_default=False,
    ),
]
