"""`python -m launcher.stages.data_run data --plan FILE --run RUN_ID --work DIR`: the data stage as a process
of a pod, for data that does not lie on the submitting machine. The counterpart of `python -m train`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from artifacts.contract import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, Plan, StageKind
from artifacts.events import Events
from artifacts.manifest import is_complete
from artifacts.store import open_store
from launcher.errors import UserError
from launcher.stages.data_run.staging import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launcher.stages.data_run")
    parser.add_argument("stage", choices=[StageKind.DATA])
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, for files that are fetched")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(options.work)
    plan = Plan.from_json(options.plan.read_bytes())
    stage, store = plan.stage(StageKind.DATA), open_store(plan.store)
    if is_complete(store, stage.output):
        return EXIT_DONE
    events = Events(store, options.run, stage.kind)
    events.say("started", pid=os.getpid())
    try:
        run(stage, store, events)
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


if __name__ == "__main__":
    sys.exit(main())
