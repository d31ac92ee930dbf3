"""Stands in for the program of every stage: tells of its progress for as many seconds as PRETEND_S says,
looks out for a stop request meanwhile, and leaves an artifact without files."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from artifacts.contract import EXIT_DONE, EXIT_DRAINED, Plan
from artifacts.events import Events, stop_key
from artifacts.logs import LogWriter
from artifacts.manifest import ArtifactWriter
from artifacts.store import open_store


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--run")
    parser.add_argument("--work")
    options = parser.parse_args()
    plan = Plan.from_json(options.plan.read_bytes())
    store = open_store(plan.store)
    events = Events(store, options.run, options.stage)
    with LogWriter(store, options.run, options.stage) as log:
        events.say("started", pid=os.getpid())
        seconds = int(os.environ.get("PRETEND_S", "0"))
        for second in range(seconds):
            log.write(f"{options.stage}: second {second} on {os.environ['NODE_NAME']}\n")
            events.progress(second, seconds, "seconds")
            if store.exists(stop_key(options.run)):
                events.say("drained")
                return EXIT_DRAINED
            time.sleep(1)
        ArtifactWriter(store, plan.stage(options.stage).output).commit()
        log.write(f"{options.stage}: made\n")
        events.say("finished")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
