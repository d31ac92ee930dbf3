"""The body of a stage's process on the launcher's side: what it says of itself, and its exit code. The
counterpart of `train.__main__.run_stage`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from artifacts.contract import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR
from artifacts.download import InputError
from artifacts.events import Events
from artifacts.redact import Redactor
from artifacts.store import StoreError
from launcher.errors import SlipwayError, UserError


def carry_out(work: Callable[[], object], events: Events) -> int:
    """Do `work` and tell `events` how it began and ended, without the environment's secrets. Returns the
    process's exit code; never raises."""
    redact = Redactor()

    def failed(cause: str, advice: str = "", **detail: str) -> None:
        print(redact(detail.get("detail") or cause), file=sys.stderr)
        facts = {"cause": cause, "advice": advice, **detail}
        events.say("failed", **{name: redact(text) for name, text in facts.items()})

    events.say("started", pid=os.getpid())
    try:
        work()
    except SlipwayError as error:
        failed(str(error))
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    except (InputError, StoreError) as error:
        failed(*_told(error))
        return EXIT_FAILED
    except Exception as error:
        failed(f"{type(error).__name__}: {error}".splitlines()[0], detail=traceback.format_exc())
        return EXIT_FAILED
    events.say("finished")
    return EXIT_DONE


def _told(error: InputError | StoreError) -> tuple[str, str]:
    """(cause, advice)."""
    if isinstance(error, InputError):
        return error.cause, error.advice
    return f"{error.what}: {error.why}", error.way_out
