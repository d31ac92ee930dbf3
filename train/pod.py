"""`python -m train.pod STAGE --plan FILE --run RUN_ID --work DIR`: `python -m train` for a container.

Whatever the stage prints, native libraries included, goes to the container's own output and to the run's logs
in the store. The stage is a child process: the end of one that crashed or was killed is still told.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from artifacts.contract import Plan
from artifacts.logs import LogWriter
from artifacts.redact import Redactor
from artifacts.store import open_store
from train.tee import LAST_WORDS_S, copy


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m train.pod", add_help=False)
    parser.add_argument("stage")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--module", default="train", help="what carries the stage out, instead of `train`")
    options, rest = parser.parse_known_args(argv)
    arguments = [options.stage, "--plan", str(options.plan), "--run", options.run, *rest]
    store = open_store(Plan.from_json(options.plan.read_bytes()).store)
    with LogWriter(store, options.run, options.stage, redact=Redactor()) as log:
        code = run_logged([sys.executable, "-P", "-m", options.module, *arguments], log)
        if code < 0:
            words = f"The stage was ended by {signal.Signals(-code).name}.\n"
            sys.stdout.write(words)
            log.write(words)
    return code if code >= 0 else 128 - code


def run_logged(command: Sequence[str], log: LogWriter) -> int:
    """Run the command with its output to this process's own and to `log`. SIGTERM and SIGINT are passed on.
    Returns its exit code, negative for a signal."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: child.send_signal(received))
    assert child.stdout is not None
    copying = threading.Thread(
        target=copy, args=(child.stdout.fileno(), sys.stdout.fileno(), log), daemon=True
    )
    copying.start()
    code = child.wait()
    copying.join(LAST_WORDS_S)  # longer than the pipe takes to empty, whoever else still holds it
    return code


if __name__ == "__main__":
    sys.exit(main())
