"""Commands about runs: status, logs, resume, cancel, runs, gc, and the driver itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, RequiredRun, RunName, open_place
from launcher.commands.output import columns, remark, say, say_now, show_json, when

if TYPE_CHECKING:
    from collections.abc import Callable

    from artifacts.contract import Plan, StagePlan
    from launcher.backends.local import LocalBackend
    from launcher.commands.options import Place
    from launcher.progress.board import Board

_FOLLOW_POLL_S = 0.2

runs_app = typer.Typer(help="List runs, or forget one.", invoke_without_command=True)


def status(
    run: RunName = None,
    cluster: ClusterName = "local",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a run is, or why it failed.

    Example: slipway status support-bot
    """
    from launcher import pilot, record

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    alive = pilot.is_alive(place.work, run_id)
    if follow and alive:
        from launcher.commands.follow import follow_run

        return follow_run(place, run_id, as_json=as_json)
    board = record.load_board(place.store, run_id, alive=alive)
    made = record.load_plan(place.store, run_id)
    if as_json:
        return show_json(_status_json(place, run_id, board, made))
    _show_status(place, run_id, board, made)


def logs(
    run: RunName = None,
    cluster: ClusterName = "local",
    stage: Annotated[
        str | None, typer.Option("--stage", "-s", help="data, model, prepare, train, merge or predict.")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the stage has ended; without --stage, the run."),
    ] = False,
) -> None:
    """Print what a stage of a run wrote.

    The newest attempt of the stage; left out, of the one that runs, failed or came last.

    Example: slipway logs support-bot --stage train -f
    """
    from launcher import pilot, record
    from launcher.backends.local import LocalBackend
    from launcher.errors import Problem, UserError

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    made = record.load_plan(place.store, run_id)
    board = record.load_board(place.store, run_id, alive=pilot.is_alive(place.work, run_id))
    name = stage or _telling_stage(board)
    if name not in board.stages:
        known = ", ".join(board.stages)
        raise UserError(
            Problem(where="", what=f"stage {name}", why="not in this run", way_out=f"one of {known}")
        )
    with LocalBackend(made, run_id, place.store, place.work) as backend:
        if stage or not follow:
            _show_log(backend, made.stage(name), follow)
        else:
            _follow_logs(backend, made, name, lambda: pilot.is_alive(place.work, run_id))


def resume(
    run: RequiredRun,
    cluster: ClusterName = "local",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return at once; the run goes on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run from its newest sound checkpoint.

    For runs that were stopped, killed or failed; a checkpoint with a byte that differs is passed over.
    The plan is the run's own: a job file that was edited since makes another run, by `slipway submit`.

    Example: slipway resume support-bot-1a2b3c4d
    """
    from launcher import pilot, record
    from launcher.commands.follow import follow_run, way_back

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    made = record.load_plan(place.store, run_id)
    place.require_writable()
    if not pilot.is_alive(place.work, run_id):
        remark(_resume_point(place, made))
    started = pilot.launch(place.store, run_id, place.work)
    remark(f"{'resumed' if started else 'attached to'} {run_id}")
    if detach:
        show_json({"run": run_id, "state": "running"}) if as_json else say(way_back(run_id, place.cluster))
    else:
        follow_run(place, run_id, as_json=as_json)


def cancel(
    run: RequiredRun,
    cluster: ClusterName = "local",
    grace_s: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="Time to save before it is terminated.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Save and stop a run.

    Training saves a checkpoint at the next step and ends; `slipway resume` goes on from there.

    Example: slipway cancel support-bot --grace 30
    """
    from artifacts.contract import canonical_json
    from artifacts.events import stop_key
    from launcher import pilot, record

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    if not pilot.is_alive(place.work, run_id):
        state = record.load_board(place.store, run_id, alive=False).state
        return (
            show_json({"run": run_id, "state": state})
            if as_json
            else say(f"{run_id} is not running: {state}")
        )
    request = canonical_json({"time_s": time.time(), "grace_s": grace_s})
    remark(f"asking {run_id} to stop; it has {grace_s:.0f} s to save")
    while pilot.is_alive(place.work, run_id):
        if not place.store.exists(stop_key(run_id)):  # a drive that is just beginning removes older ones
            place.store.write_bytes(stop_key(run_id), request)
        time.sleep(0.1)
    board = record.load_board(place.store, run_id, alive=False)
    step = board.stages["train"].checkpoint_step if "train" in board.stages else None
    if as_json:
        show_json({"run": run_id, "state": board.state, "checkpoint_step": step})
    else:
        saved = f", saved at step {step}" if step is not None else ""
        say(f"{run_id} is {board.state}{saved}; `slipway resume {run_id}` goes on")


@runs_app.callback()
def runs(context: typer.Context, cluster: ClusterName = "local", as_json: AsJson = False) -> None:
    """List runs, newest first (`slipway runs`), or forget one (`slipway runs rm RUN`)."""
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
    from launcher import pilot, record
    from launcher.errors import Problem, UserError

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    if pilot.is_alive(place.work, run_id):
        raise UserError(
            Problem(where="", what=f"run {run_id}", why="it is running", way_out=f"slipway cancel {run_id}")
        )
    record.remove(place.store, run_id)
    say(f"{run_id} forgotten; `slipway gc` removes what no other run refers to")


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


def drive(run: RequiredRun, cluster: ClusterName = "local") -> None:
    """Drive a run in this process, in the foreground (what `submit` leaves running behind it)."""
    from launcher import pilot, record

    place = open_place(cluster)
    raise typer.Exit(pilot.pilot(place.store, record.find(place.store, run), place.work))


def _list_runs(cluster: str, as_json: bool) -> None:
    from launcher import pilot, record
    from launcher.progress.live import duration

    place = open_place(cluster)
    found = record.list_runs(place.store, pilot.alive_runs(place.work))
    if as_json:
        return show_json(found)
    rows = []
    for run in found:
        took = run.driven_s
        if run.state == "running" and run.started_s is not None:
            took += time.time() - run.started_s
        stages = f"{run.stages_complete}/{run.stages}"
        rows.append([run.run_id, run.state, stages, when(run.created_s), duration(took or None)])
    say(
        columns(rows, ["RUN", "STATE", "STAGES", "BEGUN", "TIME"])
        if rows
        else "no run yet: slipway submit JOB"
    )


def _show_log(backend: LocalBackend, stage: StagePlan, follow: bool) -> None:
    files = backend.log_files(stage)
    remark(f"{stage.kind}: {files[-1] if files else 'it has written nothing here'}")
    for line in backend.logs(stage, follow=follow):
        say_now(line)


def _follow_logs(backend: LocalBackend, plan: Plan, first: str, alive: Callable[[], bool]) -> None:
    """Print the logs of stage `first` and of all that begin after it, until nobody drives the run."""
    logs = {stage.kind: backend.log_files(stage) for stage in plan.stages}
    shown = {file for kind, files in logs.items() for file in (files[:-1] if kind == first else files)}
    while True:
        driven = alive()  # asked before the look: nothing is written after a driver's end
        for stage in plan.stages:
            files = backend.log_files(stage)
            if not shown.issuperset(files):
                shown.update(files)
                _show_log(backend, stage, follow=driven)
        if not driven:
            return
        time.sleep(_FOLLOW_POLL_S)


def _telling_stage(board: Board) -> str:
    """The stage whose log one wants to see first."""
    for state in ("failed", "running", "restarting"):
        for name, stage in board.stages.items():
            if stage.state == state:
                return name
    begun = [(stage.started_s, name) for name, stage in board.stages.items() if stage.started_s is not None]
    return max(begun)[1] if begun else next(iter(board.stages))


def _resume_point(place: Place, plan: Plan) -> str:
    from artifacts.contract import StageKind
    from artifacts.manifest import is_complete
    from launcher.checkpoints import newest_step, training_prefix

    missing = [stage.kind for stage in plan.stages if not is_complete(place.store, stage.output)]
    if not missing:
        return "every stage is complete already"
    if StageKind.TRAIN not in missing:
        return f"training is complete; {', '.join(missing)} to do"
    step = newest_step(place.store, training_prefix(plan))
    if step < 0:
        return "training has no checkpoint yet"
    return f"training goes on from step {step}, or an earlier one should that checkpoint not verify"


def _status_json(place: Place, run_id: str, board: Board, plan: Plan) -> dict[str, object]:
    from launcher import checkpoints

    keys = {str(stage.kind): stage.key for stage in plan.stages}
    stages = [
        {**vars(stage), "key": keys[name], "eta_s": stage.eta_s()} for name, stage in board.stages.items()
    ]
    saved = checkpoints.list_checkpoints(place.store, checkpoints.training_prefix(plan))
    return {"run": run_id, **{**vars(board), "stages": stages}, "checkpoints": saved}


def _show_status(place: Place, run_id: str, board: Board, plan: Plan) -> None:
    import sys

    from rich.console import Console

    from launcher import checkpoints
    from launcher.commands.follow import show_results
    from launcher.progress.live import amount, table

    driver = f" ({board.driver})" if board.state == "running" else ""
    now_s = board.ended_s or time.time()
    Console(file=sys.stdout).print(table(board, f"{run_id}  {board.state}{driver}", now_s))
    saved = checkpoints.list_checkpoints(place.store, checkpoints.training_prefix(plan))
    if saved and board.state != "complete":
        say(
            "\ncheckpoints: "
            + ", ".join(f"step {c.step} ({c.state}, {amount(c.size_bytes, 'bytes')})" for c in saved)
        )
    if board.cause:
        say(f"\nstage {board.failed_stage} failed: {board.cause}")
        say(f"  advice: {board.advice or 'none'}\n  evidence: {board.evidence}")
    if board.state in ("interrupted", "drained", "failed"):
        say(f"\n`slipway resume {run_id}` goes on")
    if board.state == "complete":
        show_results(place, run_id, plan, as_json=False)
