"""A function in a forked process: its memory, threads and patched libraries end with it."""

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

_LAST_LINES = 40  # of what it printed, shown where it fails
_MORE_MEMORY = "ask for more memory: resources.quantize in the cluster's profile"


def in_child(doing: str, function: Callable[..., Any], *arguments: Any, told: Told, log: Path) -> Any:
    """`function(*arguments, told)`, which may tell how far it is; returns what it returned. What it prints
    goes to the file `log`, of which stderr gets the end where it fails.

    `doing` says what it does, in words like "measuring the model". Raises the StageError that the function
    raised, or one of its failure or sudden death.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_run, args=(sender, os.getpid(), log, function, arguments))
    process.start()
    sender.close()
    try:
        while True:
            kind, value = receiver.recv()
            if kind == "told":
                told(*value)
            elif kind == "returned":
                return value
            elif kind == "refused":
                raise value
            else:
                _show_end(log)
                raise StageError(f"{doing} failed: {value}", _advice(value))
    except EOFError:
        process.join()
        _show_end(log)
        code = process.exitcode
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        raise StageError(f"{doing} {ending}", _MORE_MEMORY if code < 0 else "") from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _run(
    sender: Any, parent: int, log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    die_with_parent(parent)
    reset_signals()
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    try:
        sender.send(("returned", function(*arguments, lambda *far: sender.send(("told", far)))))
    except StageError as error:
        sender.send(("refused", type(error)(error.cause, error.advice)))
    except Exception as error:
        traceback.print_exc()
        sender.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sender.close()


def _advice(failure: str) -> str:
    return _MORE_MEMORY if failure.startswith(("OutOfMemoryError", "MemoryError")) else ""


def _show_end(log: Path) -> None:
    with log.open(encoding="utf-8", errors="replace") as lines:
        sys.stderr.write("".join(deque(lines, _LAST_LINES)))
