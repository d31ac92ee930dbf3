"""Commands that act on a run: resume, cancel, and the pilot itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, Detach, RequiredRun, open_place
from launcher.commands.output import remark, say, show_json

if TYPE_CHECKING:
    from artifacts.contract import Plan
    from launcher.commands.options import Place


#: Beyond the grace period: processes are ended, the report is written.
_ENDING_S = 120.0


def resume(
    run: RequiredRun, cluster: ClusterName = "local", detach: Detach = False, as_json: AsJson = False
) -> None:
    """Go on with a run from its newest sound checkpoint.

    For runs that were stopped, killed or failed; a checkpoint with a byte that differs is passed over.
    The plan is the run's own: a job file that was edited since makes another run, by `slipway submit`.

    Example: slipway resume support-bot-1a2b3c4d
    """
    from launcher import record
    from launcher.commands.follow import attend, stage_shown
    from launcher.commands.starting import require_publishable
    from launcher.progress.journal import Journal

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    made = record.load_plan(place.store, run_id)
    if not place.pilots.is_alive(run_id):
        place.require_ready()
        require_publishable(made, place)
        remark(_resume_point(place, made))
        Journal(place.store, run_id).submitted()
        stage_shown(place, made, run_id)
    started = place.pilots.launch(made, run_id)
    remark(f"{'resumed' if started else 'attached to'} {run_id}")
    attend(place, run_id, detach=detach, as_json=as_json)


def cancel(
    run: RequiredRun,
    cluster: ClusterName = "local",
    grace_s: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="Time to save before it is terminated.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Save and stop a run.

    Training saves a checkpoint at the next step and ends; `slipway resume` goes on from there. What was
    started on a cluster for the run is removed, its artifacts, logs and record stay in the store.

    Example: slipway cancel support-bot --grace 30
    """
    from launcher import record

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    if not place.pilots.is_alive(run_id):
        place.pilots.clear(run_id)
        state = record.load_board(place.store, run_id, alive=False).state
        return (
            show_json({"run": run_id, "state": state})
            if as_json
            else say(f"{run_id} is not running: {state}")
        )
    remark(f"asking {run_id} to stop; it has {grace_s:.0f} s to save")
    _drain(place, run_id, grace_s)
    place.pilots.clear(run_id)
    board = record.load_board(place.store, run_id, alive=False)
    step = board.stages["train"].checkpoint_step if "train" in board.stages else None
    if as_json:
        show_json({"run": run_id, "state": board.state, "checkpoint_step": step})
    else:
        saved = f", saved at step {step}" if step is not None else ""
        say(f"{run_id} is {board.state}{saved}; `slipway resume {run_id}{place.option}` goes on")


def drive(run: RequiredRun, cluster: ClusterName = "local") -> None:
    """Drive a run in this process, in the foreground (what `submit` leaves running behind it)."""
    from launcher import record

    place = open_place(cluster)
    raise typer.Exit(place.pilots.drive(record.find(place.store, run)))


def _drain(place: Place, run_id: str, grace_s: float) -> None:
    """Ask the run to stop until nobody drives it; not for longer than that may take, nor where its pilot has
    not come to drive and nobody would heed it."""
    from artifacts.contract import canonical_json
    from artifacts.events import stop_key

    request = canonical_json({"time_s": time.time(), "grace_s": grace_s})
    deadline = time.monotonic() + grace_s + _ENDING_S
    while place.pilots.is_alive(run_id) and time.monotonic() < deadline:
        if place.pilots.waiting(run_id):
            return
        if not place.store.exists(stop_key(run_id)):  # a drive that is just beginning removes older ones
            place.store.write_bytes(stop_key(run_id), request)
        time.sleep(place.pilots.poll_s)


def _resume_point(place: Place, plan: Plan) -> str:
    from artifacts.contract import StageKind
    from artifacts.manifest import is_complete
    from launcher.checkpoints import newest_step, training_prefix

    missing = [stage.kind for stage in plan.stages if not is_complete(place.store, stage.output)]
    if not missing:
        return "every stage is complete already"
    if StageKind.TRAIN not in missing:
        trained = "training is complete; " if plan.has(StageKind.TRAIN) else ""
        return f"{trained}{', '.join(missing)} to do"
    step = newest_step(place.store, training_prefix(plan))
    if step < 0:
        return "training has no checkpoint yet"
    return f"training goes on from step {step}, or an earlier one should that checkpoint not verify"
