"""`slipway`: the commands, and how they end. With `launcher.commands` the only place that prints or exits.

Bodies of commands import what they need, so that `slipway --help` and completion stay quick.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TextIO

import typer

from artifacts.redact import RedactedStream, Redactor
from launcher.commands import (
    alone,
    compare,
    control,
    data,
    doctor,
    handover,
    history,
    images,
    jobs,
    products,
    publish,
    serve,
    talk,
    watch,
)
from launcher.commands.panels import JOBS, MODELS, PLACES, RUNS, Panels
from launcher.errors import EXIT_DETACHED, EXIT_RUN_FAILED, SlipwayError, UserError, known_error

app = typer.Typer(
    name="slipway",
    cls=Panels,
    help="One job file in, one fine-tuned and merged model out.\n\n"
    "Start with: slipway init my-job, slipway plan my-job.yaml, slipway submit my-job.yaml\n\n"
    "Exit codes: 0 done, 1 the run failed, 2 a mistake in what you gave, 3 the cluster or network, 130 ^C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's takes 0.25 s to import
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, list[Callable[..., None]]] = {
    JOBS: [jobs.init, jobs.pin, jobs.plan, jobs.submit, handover.stage, handover.render],
    RUNS: [
        watch.status,
        watch.logs,
        watch.dashboard,
        control.resume,
        control.cancel,
        products.fetch,
        products.verify,
        products.report,
        compare.compare,
    ],
    MODELS: [
        alone.merge,
        alone.quantize,
        alone.export,
        alone.predict,
        publish.publish,
        talk.chat,
        serve.serve,
    ],
    PLACES: [history.gc, jobs.schema, jobs.clusters, doctor.doctor],
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(history.runs_app, name="runs", rich_help_panel=RUNS)
app.add_typer(data.app, name="data", rich_help_panel=PLACES)
app.add_typer(images.app, name="image", rich_help_panel=PLACES)
app.command(hidden=True)(control.drive)


def main() -> None:
    """The console script. Errors become one message and an exit code; SLIPWAY_DEBUG=1 shows tracebacks."""
    _open_standard_streams()
    redact = Redactor()
    sys.stdout, sys.stderr = (RedactedStream(_lenient(s), redact) for s in (sys.stdout, sys.stderr))
    try:
        _run()
    except SlipwayError as error:
        _end(error, _in_words(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", EXIT_DETACHED)
    except BrokenPipeError as error:  # a reader as `head` that has seen enough
        _end(error, "", EXIT_RUN_FAILED)
    except Exception as error:
        known = known_error(error)
        if known is not None:
            _end(error, _in_words(known), known.exit_code)
        what = f"{type(error).__name__}: {error}"
        _end(error, f"error: slipway itself failed: {what}; SLIPWAY_DEBUG=1 shows where", EXIT_RUN_FAILED)
    finally:
        _flush()


def _run() -> None:
    try:
        app()
    finally:
        sys.stdout.flush()  # output that is lost must not pass for success


def _in_words(error: SlipwayError) -> str:
    lines = error.problems if isinstance(error, UserError) else [error]
    return "\n".join(f"error: {line}" for line in lines)


def _open_standard_streams() -> None:
    """Point those that came closed (`>&-`) at nothing, so that no file that is opened takes their number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            if nothing > 2:
                os.close(nothing)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _lenient(stream: TextIO) -> TextIO:
    """The stream, with a question mark for what a terminal of another encoding can't show."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream


def _end(error: BaseException, message: str, code: int) -> None:
    if os.environ.get("SLIPWAY_DEBUG") == "1":
        traceback.print_exception(error)
    if message:
        _flush()
        print(message, file=sys.stderr)
    sys.exit(code)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # the reader is gone or the disk is full: the interpreter would try again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
