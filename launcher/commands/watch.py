"""Commands that look at a run: status, logs, dashboard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, RunName, open_place
from launcher.commands.output import columns, remark, say, say_now, show_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from artifacts.contract import Plan, StagePlan
    from launcher.checkpoints import Checkpoint
    from launcher.commands.options import Place
    from launcher.pilots.base import Logs, Row
    from launcher.progress.board import Board


def status(
    run: RunName = None,
    cluster: ClusterName = "local",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", "--follow", "-f", help="Go on showing it, to its end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a run is, or why it failed.

    Its stages, their speed and restarts, why something waits, and on a cluster what runs where. Afterwards it
    tells the story: what happened on the way, and how it ended.

    Examples:

      slipway status support-bot

      slipway status support-bot --watch
    """
    from artifacts.events import events_prefix
    from artifacts.segments import read_all
    from launcher import record
    from launcher.progress.board import Board
    from launcher.progress.story import story

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    alive = place.pilots.is_alive(run_id)
    if watch and alive:
        from launcher.commands.follow import follow_run

        return follow_run(place, run_id, as_json=as_json)
    made = record.load_plan(place.store, run_id)
    rows = list(read_all(place.store, events_prefix(run_id)))
    board = Board.of([stage.kind for stage in made.stages], rows, alive=alive)
    members = place.pilots.members(made, run_id)
    if as_json:
        return show_json(_status_json(place, run_id, board, made, members, story(rows)))
    _show_status(place, run_id, board, made, members)
    _show_story(story(rows))
    _show_ending(place, run_id, board, made, alive=alive)


def logs(
    run: RunName = None,
    cluster: ClusterName = "local",
    stage: Annotated[
        str | None,
        typer.Option("--stage", "-s", metavar="STAGE", help="One of the run's, as train, merge or predict."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", metavar="N", min=0, help="Of one worker of the training alone."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the stage has ended; without --stage, the run."),
    ] = False,
) -> None:
    """Print what a stage of a run wrote.

    The newest attempt of the stage; left out, of the one that runs, failed or came last. On a cluster logs
    are kept in the store: they are there after the processes that wrote them are gone.

    Examples:

      slipway logs support-bot --stage train -f

      slipway logs support-bot --rank 3
    """
    from launcher import record
    from launcher.errors import Problem, UserError

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    made = record.load_plan(place.store, run_id)
    board = record.load_board(place.store, run_id, alive=place.pilots.is_alive(run_id))
    name = stage or ("train" if rank is not None else _telling_stage(board))
    if name not in board.stages:
        known = ", ".join(board.stages)
        raise UserError(
            Problem(where="", what=f"stage {name}", why="not in this run", way_out=f"one of {known}")
        )
    written = place.pilots.logs(made, run_id)
    if stage or rank is not None or not follow:
        _show_log(written, made.stage(name), follow=follow, rank=rank)
    else:
        _follow_logs(written, made, name, lambda: place.pilots.is_alive(run_id), place.pilots.poll_s)


def dashboard(
    run: RunName = None,
    cluster: ClusterName = "local",
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, if there is one.")
    ] = True,
) -> None:
    """Open the Ray dashboard of a run.

    It is reached through the cluster's API, so it need not be exposed; the token that it asks for is added on
    the way and never shown. ^C closes the connection; the run goes on.

    Example: slipway dashboard support-bot --cluster prod
    """
    import webbrowser

    from launcher import record

    place = open_place(cluster)
    run_id = record.find(place.store, run)
    made = record.load_plan(place.store, run_id)
    with place.pilots.dashboard(made, run_id) as shown:
        say_now(shown.url)
        remark("^C closes it; the run goes on")
        if open_browser:
            webbrowser.open(shown.url)
        try:
            shown.wait(lambda: False)
        except KeyboardInterrupt:
            remark("")


# Logs -------------------------------------------------------------------------------------------------------


def _show_log(written: Logs, stage: StagePlan, *, follow: bool, rank: int | None = None) -> None:
    attempts = written.attempts(stage)
    remark(f"{stage.kind}: {attempts[-1] if attempts else 'it has written nothing here'}")
    for line in written.lines(stage, rank=rank, follow=follow):
        say_now(line)


def _follow_logs(written: Logs, plan: Plan, first: str, alive: Callable[[], bool], poll_s: float) -> None:
    """Print the logs of stage `first` and of all that begin after it, until nobody drives the run."""
    there = {stage.kind: written.attempts(stage) for stage in plan.stages}
    shown = {log for kind, logs in there.items() for log in (logs[:-1] if kind == first else logs)}
    while True:
        driven = alive()  # asked before the look: nothing is written after a pilot's end
        for stage in plan.stages:
            attempts = written.attempts(stage)
            if not shown.issuperset(attempts):
                shown.update(attempts)
                _show_log(written, stage, follow=driven)
        if not driven:
            return
        time.sleep(poll_s)


def _telling_stage(board: Board) -> str:
    """The stage whose log one wants to see first."""
    for state in ("failed", "running", "restarting"):
        for name, stage in board.stages.items():
            if stage.state == state:
                return name
    begun = [(stage.started_s, name) for name, stage in board.stages.items() if stage.started_s is not None]
    return max(begun)[1] if begun else next(iter(board.stages))


# Status -----------------------------------------------------------------------------------------------------


def _status_json(
    place: Place, run_id: str, board: Board, plan: Plan, members: list[Row], story: list[str]
) -> dict[str, object]:
    keys = {str(stage.kind): stage.key for stage in plan.stages}
    stages = [
        {**vars(stage), "key": keys[name], "eta_s": stage.eta_s()} for name, stage in board.stages.items()
    ]
    told = {**vars(board), "stages": stages, "story": story}
    return {"run": run_id, **told, "members": members, "checkpoints": _checkpoints(place, plan)}


def _show_status(place: Place, run_id: str, board: Board, plan: Plan, members: list[Row]) -> None:
    import sys

    from rich.console import Console

    from launcher.progress.live import amount, table

    pilot = f" ({board.pilot})" if board.state == "running" else ""
    now_s = board.ended_s or time.time()
    Console(file=sys.stdout).print(table(board, f"{run_id}  {board.state}{pilot}", now_s))
    if members:
        say("\n" + columns([list(row.values()) for row in members], list(members[0])))
    saved = _checkpoints(place, plan)
    if saved and board.state != "complete":
        say(
            "\ncheckpoints: "
            + ", ".join(f"step {c.step} ({c.state}, {amount(c.size_bytes, 'bytes')})" for c in saved)
        )


def _show_story(lines: list[str]) -> None:
    if lines:
        say("\n" + "\n".join(lines))


def _show_ending(place: Place, run_id: str, board: Board, plan: Plan, *, alive: bool) -> None:
    """How the run ended, and what to do now."""
    from launcher.commands.follow import show_results
    from launcher.status import last_line

    if not alive and board.state in ("new", "interrupted"):
        output, where = place.pilots.last_words(run_id, board.started_s or 0.0)
        if words := last_line(output):
            say(f"\nits pilot ended before the run did: {words}\n  evidence: {where}")
    if board.cause:
        say(f"\nstage {board.failed_stage} failed: {board.cause}")
        say(f"  advice: {board.advice or 'none'}\n  evidence: {board.evidence}")
    if not alive and board.state != "complete":
        say(f"\n`slipway resume {run_id}{place.option}` goes on")
    if board.state == "complete":
        show_results(place, run_id, plan, as_json=False)


def _checkpoints(place: Place, plan: Plan) -> list[Checkpoint]:
    from launcher.checkpoints import of_plan

    return of_plan(place.store, plan)
