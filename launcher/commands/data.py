"""Commands about data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import AsJson
from launcher.commands.output import say, show_json

app = typer.Typer(help="Look at data files before a job uses them.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data files before a job uses them."""


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON list, JSON lines, CSV or Parquet.", show_default=False),
    ],
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="messages or alpaca; detected when auto.")
    ] = "auto",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", metavar="FOLDER", help="Model folder: lengths in tokens.", show_default=False
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", metavar="TOKENS", min=1, help="Tokens per sequence, as in the job.")
    ] = 2048,
    as_json: AsJson = False,
) -> None:
    """Read every record of a data file.

    Counts, the first bad records, lengths; with a tokenizer also what would be truncated.

    Exit code 2 where a job with `data.on_error: stop` would refuse the file.

    Example: slipway data check bot.train.jsonl --tokenizer models/qwen3 --max-length 4096
    """
    from launcher.data_check import check as look
    from launcher.data_check import render
    from launcher.errors import EXIT_USER_ERROR, Problem, UserError

    if format not in ("auto", "messages", "alpaca"):
        raise UserError(Problem(where="", what=f"--format {format}", why="not one of auto, messages, alpaca"))
    report = look(file, format=format, tokenizer=tokenizer, max_length=max_length)  # type: ignore[arg-type]
    show_json(report) if as_json else say(render(report))
    if not report.ok:
        raise typer.Exit(EXIT_USER_ERROR)
