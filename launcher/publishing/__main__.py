"""`python -m launcher.publishing publish --plan FILE --run RUN_ID --work DIR`: the stage `publish` as a
process of a pod. The counterpart of `python -m train`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from artifacts.contract import EXIT_DONE, Plan, StageKind
from artifacts.events import Events
from artifacts.manifest import is_complete
from artifacts.redact import RedactedStream, Redactor
from artifacts.store import open_store
from launcher.publishing.stage import run
from launcher.stages.telling import carry_out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launcher.publishing")
    parser.add_argument("stage", choices=[StageKind.PUBLISH])
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    options = parser.parse_args(arguments)
    redact = Redactor()  # libraries warn with the addresses that they asked, signatures and all
    sys.stdout, sys.stderr = RedactedStream(sys.stdout, redact), RedactedStream(sys.stderr, redact)
    options.work.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(options.work)
    plan = Plan.from_json(options.plan.read_bytes())
    store = open_store(plan.store)
    if is_complete(store, plan.stage(StageKind.PUBLISH).output):
        return EXIT_DONE
    events = Events(store, options.run, StageKind.PUBLISH)
    return carry_out(lambda: run(plan, options.run, store, events), events)


if __name__ == "__main__":
    sys.exit(main())
