"""Commands about all runs of a store: runs, gc."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, RequiredRun, open_place
from launcher.commands.output import columns, say, show_json, when

runs_app = typer.Typer(help="List runs, or forget one.", invoke_without_command=True)


@runs_app.callback()
def runs(context: typer.Context, cluster: ClusterName = "local", as_json: AsJson = False) -> None:
    """List runs, newest first (`slipway runs`), or forget one (`slipway runs rm RUN`).

    On a cluster: of everybody who uses its store.
    """
    if context.invoked_subcommand is None:
        _list_runs(cluster, as_json)


@runs_app.command("ls")
def runs_ls(cluster: ClusterName = "local", as_json: AsJson = False) -> None:
    """List runs, newest first."""
    _list_runs(cluster, as_json)


@runs_app.command("rm")
def runs_rm(run: RequiredRun, cluster: ClusterName = "local") -> None:
    """Forget a run: its plan, events and report. What it made stays until `slipway gc`.

    Example: slipway runs rm support-bot-1a2b3c4d
    """
    from launcher import record
    from launcher.errors import Problem, UserError

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    if place.pilots.is_alive(run_id):
        way_out = f"slipway cancel {run_id}{place.option}"
        raise UserError(Problem(where="", what=f"run {run_id}", why="it is running", way_out=way_out))
    place.pilots.clear(run_id)
    record.remove(place.store, run_id)
    say(f"{run_id} forgotten; `slipway gc{place.option}` removes what no other run refers to")


def gc(
    cluster: ClusterName = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only show what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove artifacts that no run refers to.

    And what writes that were killed have left, once it is a day old.

    Example: slipway gc --dry-run
    """
    from launcher import garbage
    from launcher.progress.live import amount

    place = open_place(cluster)
    found = garbage.find(place.store)
    if not dry_run:
        garbage.collect(place.store, found)
    total_bytes = sum(item.size_bytes for item in found)
    if as_json:
        return show_json({"removed": not dry_run, "size_bytes": total_bytes, "found": found})
    for item in found:
        say(f"{amount(item.size_bytes, 'bytes'):>10}  {item.path}")
    verb = "would be removed" if dry_run else "removed"
    say(f"{amount(total_bytes, 'bytes'):>10}  {verb}, {len(found)} in all" if found else "nothing to remove")


def _list_runs(cluster: str, as_json: bool) -> None:
    from launcher import record
    from launcher.progress.live import duration

    place = open_place(cluster)
    found = record.list_runs(place.store, place.pilots.alive_runs())
    if as_json:
        return show_json(found)
    rows = []
    for run in found:
        took = run.driven_s
        if run.state == "running" and run.started_s is not None:
            took += time.time() - run.started_s
        stages = f"{run.stages_complete}/{run.stages}"
        rows.append([run.run_id, run.state, stages, when(run.created_s), duration(took or None), run.user])
    say(
        columns(rows, ["RUN", "STATE", "STAGES", "BEGUN", "TIME", "BY"])
        if rows
        else f"no run yet: slipway submit JOB{place.option}"
    )
