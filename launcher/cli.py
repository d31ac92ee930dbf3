"""`slipway`: the commands, and how they end. With `launcher.commands` the only place that prints or exits.

Bodies of commands import what they need, so that `slipway --help` and completion stay quick.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer

from launcher.commands import data, jobs, products, runs
from launcher.errors import EXIT_DETACHED, EXIT_RUN_FAILED, SlipwayError, UserError
from launcher.redact import RedactedStream, Redactor

app = typer.Typer(
    name="slipway",
    help="One job file in, one fine-tuned and merged model out.\n\n"
    "Start with: slipway init my-job, slipway plan my-job.yaml, slipway submit my-job.yaml\n\n"
    "Exit codes: 0 done, 1 the run failed, 2 a mistake in what you gave, 3 the cluster or network, 130 ^C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_JOBS, _RUNS, _PRODUCTS = "Jobs", "Runs", "What runs leave"
for command in (jobs.init, jobs.pin, jobs.plan, jobs.submit, jobs.schema, jobs.clusters):
    app.command(rich_help_panel=_JOBS)(command)
app.add_typer(data.app, name="data", rich_help_panel=_JOBS)
for command in (runs.status, runs.logs, runs.resume, runs.cancel):
    app.command(rich_help_panel=_RUNS)(command)
app.add_typer(runs.runs_app, name="runs", rich_help_panel=_RUNS)
for command in (products.fetch, products.verify, products.report):
    app.command(rich_help_panel=_PRODUCTS)(command)
app.command(rich_help_panel=_PRODUCTS)(runs.gc)
app.command(hidden=True)(runs.drive)


def main() -> None:
    """The console script. Errors become one message and an exit code; SLIPWAY_DEBUG=1 shows tracebacks."""
    redact = Redactor()
    sys.stdout = RedactedStream(sys.stdout, redact)  # type: ignore[assignment]
    sys.stderr = RedactedStream(sys.stderr, redact)  # type: ignore[assignment]
    try:
        app()
    except UserError as error:
        _end(error, "\n".join(f"error: {problem}" for problem in error.problems), error.exit_code)
    except SlipwayError as error:
        _end(error, f"error: {error}", error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", EXIT_DETACHED)
    except BrokenPipeError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - what is left to flush has no reader
        _end(error, "", EXIT_RUN_FAILED)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        _end(error, f"error: slipway itself failed: {what}; SLIPWAY_DEBUG=1 shows where", EXIT_RUN_FAILED)


def _end(error: BaseException, message: str, code: int) -> None:
    if os.environ.get("SLIPWAY_DEBUG") == "1":
        traceback.print_exception(error)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
