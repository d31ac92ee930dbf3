"""Ranks print into the run's logs as well. Ray starts their processes, so it is the process itself that puts
a pipe in place of its output; what comes out of the pipe is copied by another process, which outlives it.

A thread would not do: native code that prints while it holds the interpreter's lock would wait for ever once
the pipe is full, and the last words of a crash would be lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator

from artifacts.logs import LogWriter
from artifacts.redact import Redactor
from artifacts.store import open_store

LAST_WORDS_S = 5.0
_BLOCK_BYTES = 64 * 1024


@contextlib.contextmanager
def teed(store_uri: str, run_id: str, stage: str, source: str) -> Iterator[None]:
    """Within the block, everything that this process writes to its stdout and stderr also goes to the log."""
    reader, writer = os.pipe()
    ended, ends = os.pipe()
    command = [sys.executable, "-P", "-m", "train.tee", "--store", store_uri, "--run", run_id]
    command += ["--stage", stage, "--source", source]
    # It becomes nobody's child, since Ray kills the children of the workers that it ends.
    subprocess.run(command, stdin=reader, pass_fds=(ends,), check=True)
    os.close(reader)
    os.close(ends)
    own = [os.dup(1), os.dup(2)]
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(own, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        select.select([ended], [], [], LAST_WORDS_S)  # a process that we started may still hold the pipe
        os.close(ended)


def main() -> None:
    """The process that copies its stdin to its stdout and the log, until nobody holds the pipe any more."""
    parser = argparse.ArgumentParser()
    for name in ("--store", "--run", "--stage", "--source"):
        parser.add_argument(name)
    options = parser.parse_args()
    with LogWriter(
        open_store(options.store), options.run, options.stage, options.source, redact=Redactor()
    ) as log:
        copy(0, 1, log)


def copy(source: int, target: int, log: LogWriter) -> None:
    """What the descriptor `source` gives to both others, until its end."""
    while data := os.read(source, _BLOCK_BYTES):
        log.write_bytes(data)
        with contextlib.suppress(OSError):  # nobody reads our own output any more
            while data:
                data = data[os.write(target, data) :]


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    main()
