"""From a plan to its run: recorded, staged, driven."""

from __future__ import annotations

from artifacts.contract import Plan, StageKind
from launcher import record
from launcher.commands.follow import stage_shown
from launcher.commands.options import Place
from launcher.commands.output import remark
from launcher.progress.journal import Journal
from launcher.stages.done import is_done


def start(plan: Plan, place: Place) -> str:
    """Have the plan's run driven, by whoever drives it already if anybody does; returns its id."""
    run_id = plan.run_id
    if not place.pilots.is_alive(run_id):
        place.require_ready()
        require_publishable(plan, place)
        record.create(place.store, plan, run_id)
        Journal(place.store, run_id).submitted()
        stage_shown(place, plan, run_id)
    started = place.pilots.launch(plan, run_id)
    _greet(plan, place, started)
    return run_id


def _greet(plan: Plan, place: Place, started: bool) -> None:
    todo = [stage.kind for stage in plan.stages if not is_done(stage, place.store)]
    what = "started" if started else "attached to"
    rest = f": {' → '.join(todo)}" if todo else ": every stage is complete"
    remark(f"{what} {plan.run_id} on {place.cluster}{rest}")


def require_publishable(plan: Plan, place: Place) -> None:
    """Raises UserError where the plan ends in a publication that can't be made."""
    if plan.has(StageKind.PUBLISH):
        from launcher.publishing import ready

        ready.require(plan, place.store, lambda text: remark(f"note: {text}"))
