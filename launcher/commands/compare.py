"""Runs side by side: compare."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import AsJson, ClusterName, complete_run
from launcher.commands.output import is_terminal, say, show_json

if TYPE_CHECKING:
    from launcher.compare.comparison import Comparison
    from launcher.reporting.collect import RunFacts

_PIPE_WIDTH = 110  # columns, where no terminal says how many it has


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_A RUN_B …",
            help="Run ids, their beginnings, or jobs' names (the newest run); RUN@CLUSTER for one of another "
            "cluster's store.",
            autocompletion=complete_run,
            show_default=False,
        ),
    ],
    cluster: ClusterName = "local",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="Write a self-contained page instead.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also settings that are the same, and every answer that differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs: scores, curves, settings, answers, times.

    The first run is what the others are held against. Curves lie over each other where the runs have learnt
    from equally much; of a score it is said whether the difference may be chance.

    Examples:

      slipway compare bot-1a2b3c4d bot-5e6f7a8b

      slipway compare bot bot@prod --output compared.html
    """
    from launcher.compare import text
    from launcher.compare.comparison import compare as compared
    from launcher.compare.comparison import to_json
    from launcher.compare.runs import lettered

    made = compared(lettered([_read(run, cluster) for run in runs]))
    if output is not None:
        _write_page(output, made, everything=everything)
    if as_json:
        show_json(to_json(made, everything=everything) | ({"page": str(output.absolute())} if output else {}))
    elif output is not None:
        say(str(output))
    else:
        width = shutil.get_terminal_size().columns if is_terminal() else _PIPE_WIDTH
        say(text.render(made, width, everything=everything).rstrip())


def _read(run: str, cluster: str) -> tuple[str, RunFacts]:
    """A run's cluster and what it left there. Each store is read with its own profile's environment."""
    from launcher import record
    from launcher.commands.options import open_place
    from launcher.compare.runs import read

    name, _, elsewhere = run.partition("@")
    before = dict(os.environ)
    try:
        place = open_place(elsewhere or cluster)
        return place.cluster, read(place.store, record.find(place.store, name))
    finally:
        os.environ.clear()
        os.environ.update(before)


def _write_page(output: Path, made: Comparison, *, everything: bool) -> None:
    from launcher.compare.page import render
    from launcher.fetch import writing

    with writing(output):
        output.write_text(render(made, everything=everything), encoding="utf-8")
