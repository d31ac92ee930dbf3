"""The body of a stage's process on the launcher's side: what it says of itself, and its exit code. The
counterpart of `train.__main__.run_stage`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from artifacts.contract import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR
from artifacts.events import Events
from launcher.errors import UserError


def carry_out(work: Callable[[], object], events: Events) -> int:
    """Do `work` and tell `events` how it began and ended. Returns the process's exit code; never raises."""
    events.say("started", pid=os.getpid())
    try:
        work()
    except UserError as error:
        print(error, file=sys.stderr)
        events.say("failed", cause=str(error), advice="")
        return EXIT_USER_ERROR
    except Exception as error:
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        events.say("failed", cause=cause, advice="", detail=traceback.format_exc())
        return EXIT_FAILED
    events.say("finished")
    return EXIT_DONE
