"""Commands about what runs leave: fetch, verify, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, RequiredRun, RunName, open_place
from launcher.commands.output import remark, say, show_json

if TYPE_CHECKING:
    from artifacts.store import Store


def fetch(
    run: RequiredRun,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="PRODUCT",
            help="merged, adapter, quantized, gguf, predictions, report, prepared, data or model. Left out: "
            "the merged model, else the adapter; of a run of `slipway quantize` and its kin, what it made.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Target. Default: ./RUN-WHAT.")
    ] = None,
    cluster: ClusterName = "local",
    as_json: AsJson = False,
) -> None:
    """Copy what a run has made out of the store.

    Every byte is checked against its manifest.

    Example: slipway fetch support-bot merged --to ./support-bot-model
    """
    from launcher import fetch as copying
    from launcher import record
    from launcher.progress.live import amount

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    target = to or Path(f"{run_id}-{what or 'model'}")
    if what == "report":
        target = target if target.suffix else target.with_suffix(".html")
        size_bytes = copying.fetch_object(place.store, _report_key(place.store, run_id), target)
    else:
        prefix = copying.product(record.load_plan(place.store, run_id), place.store, what)
        size_bytes = copying.fetch(place.store, prefix, target)
    if as_json:
        show_json({"run": run_id, "path": str(target.absolute()), "size_bytes": size_bytes})
    else:
        checked = "" if what == "report" else ", every file as its manifest says"
        say(f"{target}  {amount(size_bytes, 'bytes')}{checked}")


def verify(
    what: Annotated[
        str, typer.Argument(metavar="KEY|RUN", help="An artifact's key (or its beginning), or a run.")
    ],
    cluster: ClusterName = "local",
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up what is damaged: the next submit makes it again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Re-read every byte of an artifact or of a run.

    Of a run: of all that it has made, its checkpoints too. Each is compared with its manifest.

    Exit code 1 where something is damaged.

    Examples: slipway verify support-bot, slipway verify train/9f86d081
    """
    from artifacts.manifest import MARKER, read_marker
    from artifacts.manifest import verify as problems_of
    from launcher.progress.live import amount

    place = open_place(cluster)
    found = {prefix: problems_of(place.store, prefix) for prefix in _prefixes(place.store, what)}
    manifests = {prefix: read_marker(place.store, prefix) for prefix in found}
    sizes = {prefix: amount(made.size_bytes, "bytes") if made else "" for prefix, made in manifests.items()}
    damaged = [prefix for prefix, problems in found.items() if problems]
    for prefix in damaged if discard else ():
        place.store.delete(f"{prefix}/{MARKER}")  # without it the artifact is not there
    if as_json:
        show_json(found)
    else:
        for prefix, problems in found.items():
            say(f"{'ok ' if not problems else 'BAD'}  {prefix}  {sizes[prefix]}")
            for problem in problems:
                say(f"       {problem}")
    if damaged:
        again = "submitting the job again makes them anew"
        remark(
            f"discarded; {again}" if discard else f"`slipway verify {what} --discard` gives them up; {again}"
        )
        raise typer.Exit(1)


def report(
    run: RunName = None,
    cluster: ClusterName = "local",
    as_json: AsJson = False,
) -> None:
    """Write a run's report.html anew.

    As far as the run has come; says where it is.

    Example: slipway report support-bot
    """
    from launcher import record
    from launcher import report as reports

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    path = record.place(place.store, reports.write(place.store, run_id))
    show_json({"run": run_id, "report": path}) if as_json else say(path)


def _report_key(store: Store, run_id: str) -> str:
    from launcher import record
    from launcher.errors import Problem, UserError

    key = record.report_key(run_id)
    if not store.exists(key):
        raise UserError(
            Problem(where="", what="report", why="not written yet", way_out=f"slipway report {run_id}")
        )
    return key


def _prefixes(store: Store, text: str) -> list[str]:
    """What `text` means: the complete artifacts of a run, its checkpoints among them, or those of a key."""
    from artifacts.contract import StageKind
    from artifacts.manifest import is_complete
    from launcher import record
    from launcher.checkpoints import of_plan
    from launcher.errors import Problem, UserError
    from launcher.names import ArtifactReference, RunReference, match_artifacts, parse_reference

    try:
        reference = parse_reference(text)
    except ValueError:
        reference = None
    if isinstance(reference, ArtifactReference):
        keys = {kind: {info.key.split("/")[1] for info in store.list(kind.folder)} for kind in StageKind}
        if found := match_artifacts(reference, keys):
            return found
    run_id = record.find(store, reference.run_id if isinstance(reference, RunReference) else text)
    plan = record.load_plan(store, run_id)
    found = [stage.output for stage in plan.stages if is_complete(store, stage.output)]
    found += [item.prefix for item in of_plan(store, plan) if item.state == "complete"]
    if not found:
        raise UserError(Problem(where="", what=f"run {run_id}", why="it has made nothing yet"))
    return found
