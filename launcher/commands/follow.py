"""Following a run to its end on this terminal, and what is said then."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import typer

from artifacts.contract import Plan, StageKind
from artifacts.events import events_prefix
from artifacts.segments import SegmentReader
from launcher import record
from launcher.commands.options import Place
from launcher.commands.output import is_terminal, remark, say, say_now, show_json
from launcher.errors import EXIT_DETACHED, EXIT_RUN_FAILED, ClusterError, Problem, RunFailed, UserError
from launcher.progress.board import Board
from launcher.progress.live import LiveView, PlainView, View, follow
from launcher.reporting.products import one_line
from launcher.status import Observation, classify, last_line

_STAGING_POLL_S, _STAGING_EVERY_S = 0.5, 2.0
_ANSWER_CHARACTERS = 300  # of a cell, at the end of a run
_WHO = {"base": "before", "tuned": "after"}  # training
_PRODUCT_NAMES = {"quantize": "gptq", "gguf": "gguf", "predict": "answers", "publish": "publish"}


def stage_shown(place: Place, plan: Plan, run_id: str) -> None:
    """Bring to the cluster what only this machine has, telling of it. ^C ends it; the next one goes on."""
    reader = SegmentReader(place.store, events_prefix(run_id))
    reader.poll()  # what was said before
    board, view = Board.of([stage.kind for stage in plan.stages]), PlainView(remark, every_s=_STAGING_EVERY_S)
    over = threading.Event()

    def show() -> None:
        with contextlib.suppress(ClusterError):  # whoever stages meets it too, and tells
            board.apply(reader.poll())
            view.show(board)

    def keep_showing() -> None:
        while not over.wait(_STAGING_POLL_S):
            show()

    thread = threading.Thread(target=keep_showing, name="staging", daemon=True)
    thread.start()
    try:
        place.pilots.stage(plan, run_id, remark)
    finally:
        over.set()
        thread.join()
        show()


def attend(place: Place, run_id: str, *, detach: bool, as_json: bool, copy_to: Path | None = None) -> None:
    """After a start: follow the run, or with `detach` only say how to return to it. `copy_to`: where what it
    makes is copied once it is complete."""
    if not detach:
        follow_run(place, run_id, as_json=as_json, copy_to=copy_to)
    elif as_json:
        show_json({"run": run_id, "state": "running"})
    else:
        say(way_back(run_id, place))


def follow_run(place: Place, run_id: str, *, as_json: bool, copy_to: Path | None = None) -> None:
    """Show the run until its end; then its results, or why it failed. ^C detaches."""
    plan = record.load_plan(place.store, run_id)
    board = Board.of([stage.kind for stage in plan.stages])
    pilots = place.pilots
    try:
        board = follow(
            place.store,
            run_id,
            board,
            _view(run_id, as_json),
            lambda: pilots.is_alive(run_id),
            waiting=lambda: pilots.waiting(run_id),
            poll_s=pilots.poll_s,
        )
    except KeyboardInterrupt:
        remark(f"\ndetached: {run_id} goes on\n{way_back(run_id, place)}")
        raise typer.Exit(EXIT_DETACHED) from None
    except ClusterError:
        remark(f"\nout of sight: {run_id} goes on\n{way_back(run_id, place)}")
        raise
    for note in board.notes:
        remark(f"note: {note}")
    _raise_for(board, place, run_id)
    if copy_to is not None:
        _copy(place, plan, copy_to)
    show_results(place, run_id, plan, as_json=as_json, copied_to=copy_to)


def _copy(place: Place, plan: Plan, to: Path) -> None:
    from launcher import fetch

    prefix = fetch.product(plan, place.store, None)
    if not fetch.holds(place.store, prefix, to):
        fetch.fetch(place.store, prefix, to)


def way_back(run_id: str, place: Place) -> str:
    """How to return to a run that goes on without this terminal."""
    return "\n".join(
        f"  slipway {command:<{len(run_id) + 10}}{place.option}  # {meaning}"
        for command, meaning in (
            (f"status {run_id}", "how far it is"),
            (f"logs {run_id} -f", "what it says"),
            (f"resume {run_id}", "attach again, or go on if it was stopped"),
            (f"cancel {run_id}", "save and stop"),
        )
    )


def show_results(
    place: Place, run_id: str, plan: Plan, *, as_json: bool, copied_to: Path | None = None
) -> None:
    """Where the products are, the scores, and some answers before and after training."""
    results = record.results(place.store, run_id, plan)
    if as_json:
        copy = {"copy": str(copied_to.absolute())} if copied_to else {}
        show_json({"run": run_id, "state": "complete", **vars(results), **copy})
        return
    say()
    if results.scores:
        _say_scores(results.scores)
    if results.answers:
        _say_answers(results.answers, list(results.scores))
    if results.model:
        _say_product("model", results.model, one_line(results.figures, StageKind.MERGE))
    for kind, path in results.products.items():
        _say_product(_PRODUCT_NAMES[kind], path, one_line(results.figures, kind))
    if results.report:
        say(f"report  {results.report}")
    if copied_to:
        say(f"copy    {copied_to}")


def _say_product(name: str, path: str, figures: str) -> None:
    say(f"{name:<8}{path}")
    if figures:
        say(f"{'':<8}{figures}")


def _raise_for(board: Board, place: Place, run_id: str) -> None:
    """Turn an ending other than success into its message and exit code."""
    if board.state == "failed":
        if board.user_error:
            raise UserError(
                Problem(where="", what=f"stage {board.failed_stage}", why=board.cause, way_out=board.advice)
            )
        raise RunFailed(board.failed_stage, board.cause, board.advice, board.evidence)
    if board.state == "drained":
        again = f"`slipway resume {run_id}{place.option}` goes on from its newest checkpoint"
        remark(f"{run_id} was stopped on request; {again}")
        raise typer.Exit(EXIT_RUN_FAILED)
    if board.state != "complete":
        raise _pilot_failed(place, run_id, board.started_s or 0.0)


def _pilot_failed(place: Place, run_id: str, since_s: float) -> RunFailed:
    """A pilot that ended without a word in the run's events: it was killed, or could not write them. What it
    wrote itself since `since_s` tells which."""
    cause, way_out = "its pilot ended before the run did", f"`slipway resume {run_id}{place.option}` goes on"
    output, evidence = place.pilots.last_words(run_id, since_s)
    failure = classify(Observation(phase="ended", exit_code=EXIT_RUN_FAILED, output=output))
    if failure is not None:
        return RunFailed("run", f"{cause}: {failure.cause}", f"{failure.advice}; then {way_out}", evidence)
    if words := last_line(output):
        cause = f"{cause}: {words}"
    return RunFailed("run", cause, way_out, evidence)


def _view(run_id: str, as_json: bool) -> View:
    if as_json or not is_terminal() or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        write: Callable[[str], None] = remark if as_json else say_now
        return PlainView(write)
    from rich.console import Console

    return LiveView(Console(file=sys.stdout), run_id)


def _say_scores(scores: dict[str, dict[str, float]]) -> None:
    """A column for the base model and one for the tuned; of one model alone a line."""
    if len(scores) == 1:
        (alone,) = scores.values()
        told = (f"{name.replace('_', ' ')} {value:.1f}" for name, value in alone.items())
        say(f"scores  {' · '.join(told)}\n")
        return
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    say(f"{'scores (0 to 100)':<20}" + "".join(f"{_WHO[who]:>9}" for who in scores))
    for name in names:
        values = "".join(
            f"{values[name]:9.1f}" if name in values else f"{'':>9}" for values in scores.values()
        )
        say(f"  {name.replace('_', ' '):<18}{values}")
    say()


def _say_answers(answers: list[dict[str, str]], asked: list[str]) -> None:
    """Those of the models that were `asked`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="answers to the test file", title_justify="left", show_lines=True, expand=True)
    shown = [("question", "prompt"), ("reference", "reference")]
    shown += [(_WHO[who] if len(asked) > 1 else "answer", who) for who in asked]
    for heading, _ in shown:
        table.add_column(heading, ratio=1, overflow="fold")
    for answer in answers:
        table.add_row(*(_escaped(answer[key]) for _, key in shown))
    console = Console(file=sys.stdout) if is_terminal() else Console(file=sys.stdout, width=110)
    console.print(table)
    say()


def _escaped(text: str) -> str:
    """One cell: short, in one paragraph, and nothing in it taken for markup or for orders to the terminal."""
    from rich.markup import escape

    short = textwrap.shorten(text, _ANSWER_CHARACTERS, placeholder=" …")
    return escape(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in short)
    )
