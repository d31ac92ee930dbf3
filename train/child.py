"""A function in a forked process: its memory, threads and patched libraries end with it, and a crash of
native code is told apart from a failure of the stage."""

from __future__ import annotations

import os
import sys
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from train.processes import die_with_parent, reset_signals
from train.stage import StageError

Told = Callable[[int, int, str], None]  # done, total, unit

_TICK_S = 1.0
_LAST_LINES = 40  # of what it printed, shown where it fails
_MORE_MEMORY = "if the machine or pod ran out of memory, give the stage more"


def in_child(
    doing: str,
    function: Callable[..., Any],
    *arguments: Any,
    told: Told | None = None,
    tick: Callable[[], None] = lambda: None,
    log: Path | None = None,
) -> Any:
    """What `function(*arguments)` returns.

    With `told` the function gets one more argument, by which it tells how far it is. `tick` is called about
    once a second meanwhile. With `log` what it prints goes to that file, of which stderr gets the end where
    it fails. `doing` says what it does, in words like "measuring the model". Raises the StageError that the
    function raised, or one of its failure or sudden death.
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    further = (lambda *far: sender.send(("told", far)),) if told else ()
    process = fork.Process(target=_run, args=(sender, os.getpid(), log, function, (*arguments, *further)))
    sys.stdout.flush()
    sys.stderr.flush()
    process.start()
    sender.close()
    try:
        while True:
            if not receiver.poll(_TICK_S):
                tick()
                continue
            kind, value = receiver.recv()
            if kind == "told" and told:
                told(*value)
            elif kind == "returned":
                return value
            elif kind == "refused":
                raise value
            elif kind == "failed":
                _show_end(log)
                raise StageError(f"{doing} failed: {value}", _advice(value))
    except EOFError:
        process.join()
        _show_end(log)
        code = process.exitcode or 0
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        advice = _MORE_MEMORY if code < 0 else "see the stage's log"
        raise StageError(f"{doing} failed: its process {ending}", advice) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _run(
    sender: Any, parent: int, log: Path | None, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    die_with_parent(parent)
    reset_signals()
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        for number in (1, 2):
            os.dup2(file, number)
    try:
        answer = ("returned", function(*arguments))
    except StageError as error:
        answer = ("refused", type(error)(error.cause, error.advice))
    except BaseException as error:
        traceback.print_exc()
        answer = ("failed", f"{type(error).__name__}: {error}".splitlines()[0])
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(answer)
    sender.close()


def _advice(failure: str) -> str:
    return _MORE_MEMORY if failure.startswith(("OutOfMemoryError", "MemoryError")) else "see the stage's log"


def _show_end(log: Path | None) -> None:
    if log is not None:
        with log.open(encoding="utf-8", errors="replace") as lines:
            sys.stderr.write("".join(deque(lines, _LAST_LINES)))
