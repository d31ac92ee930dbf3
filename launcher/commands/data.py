"""Commands about data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

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
        str,
        typer.Argument(
            metavar="FILE",
            help="A data file, a folder of them, or a pattern in quotes; with --dataset-info a name in it.",
            show_default=False,
        ),
    ],
    format: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="A format of docs/data.md; detected when auto."),
    ] = "auto",
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            help="The file's name of a column, as prompt=question; repeatable.",
            show_default=False,
        ),
    ] = None,
    fix_spacing: Annotated[
        bool, typer.Option("--fix-spacing", help="As data.fix_spacing in the job.")
    ] = False,
    dataset_info: Annotated[
        Path | None,
        typer.Option(
            "--dataset-info",
            metavar="FOLDER",
            help="Folder of a dataset_info.json of LLaMA-Factory.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Count the questions that also occur in that file, as test data in training data.",
            show_default=False,
        ),
    ] = None,
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
    """Read every record of a data set.

    Type, format, counts, what is not read, the first bad records, lengths; with a tokenizer also what would
    be truncated.

    Exit code 2 where a job with `data.on_error: stop` would refuse the file.

    Example: slipway data check bot.train.jsonl --tokenizer models/qwen3 --max-length 4096
    """
    from artifacts.contract import Reading
    from launcher.data_check import check as look
    from launcher.data_check import column_names, data_files, known_format, prompts_of, render
    from launcher.errors import EXIT_USER_ERROR

    reading = Reading(columns=column_names(column or []), fix_spacing=fix_spacing)
    other = prompts_of(against) if against else None
    reports = [
        look(path, format=form, reading=how, tokenizer=tokenizer, max_length=max_length, against=other)
        for path, form, how in data_files(file, known_format(format), reading, dataset_info)
    ]
    if as_json:
        show_json(reports[0] if len(reports) == 1 else reports)
    else:
        say("\n\n".join(map(render, reports)))
    if not all(report.ok for report in reports):
        raise typer.Exit(EXIT_USER_ERROR)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A data file.", show_default=False)],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", metavar="FOLDER", help="Model folder.", show_default=False)
    ],
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="NAME",
            help="A template by name, or a file with one in Jinja; left out: the tokenizer's own.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="COUNT", min=1, help="Records.")] = 3,
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="As in the job; detected when auto.")
    ] = "auto",
    train_on: Annotated[
        str, typer.Option("--train-on", metavar="TURNS", help="assistant, last or all, as in the job.")
    ] = "assistant",
    as_json: AsJson = False,
) -> None:
    """Show the first records as tokens, learnt and not.

    What is learnt stands on green, or in ⟦ ⟧ where the output has no colours. With --json one record a line:
    segments (text, learnt), input_ids, labels.

    Example: slipway data show train.jsonl --template chatml --tokenizer models/qwen3 -n 3
    """
    from artifacts.contract import RecordFormat, TrainOn
    from launcher.commands.output import has_colours
    from launcher.data_show import render
    from launcher.data_show import show as look
    from launcher.errors import Problem, UserError

    for option, value, known in (
        ("--format", format, ("auto", *get_args(RecordFormat))),
        ("--train-on", train_on, get_args(TrainOn)),
    ):
        if value not in known:
            raise UserError(Problem(where="", what=f"{option} {value}", why=f"not one of {', '.join(known)}"))
    records = look(
        file, tokenizer=tokenizer, template=template, format=format, train_on=train_on, count=count
    )
    if as_json:
        for record in records:
            say(record.to_json())
    else:
        say(render(records, colours=has_colours()))
