"""A function in a forked process: its memory, threads and patched libraries end with it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from train.processes import die_with_parent, reset_signals
from train.stage import StageError

Told = Callable[[int, int, str], None]  # done, total, unit


def in_child(doing: str, function: Callable[..., Any], *arguments: Any, told: Told) -> Any:
    """`function(*arguments, told)`, which may tell how far it is; returns what it returned. `doing` says what
    it does, in a sentence like "measuring the model". Raises the StageError that it ended with, or one that
    says how it died."""
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_run, args=(sender, os.getpid(), doing, function, arguments))
    process.start()
    sender.close()
    try:
        while True:
            kind, value = receiver.recv()
            if kind == "returned":
                return value
            if kind == "failed":
                raise value
            told(*value)
    except EOFError:
        process.join()
        raise StageError(
            f"{doing} was killed by signal {-process.exitcode}"
            if process.exitcode < 0
            else f"{doing} ended with {process.exitcode}",
            "if the machine ran out of memory, ask for more in nodes.quantize",
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _run(
    sender: Any, parent: int, doing: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    die_with_parent(parent)
    reset_signals()
    try:
        sender.send(("returned", function(*arguments, lambda *far: sender.send(("told", far)))))
    except StageError as error:
        sender.send(("failed", type(error)(error.cause, error.advice)))
    except Exception as error:
        traceback.print_exc()
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        out_of_memory = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
        advice = "ask for more memory in nodes.quantize" if out_of_memory else ""
        sender.send(("failed", StageError(f"{doing} failed: {cause}", advice)))
    finally:
        sender.close()
        sys.stdout.flush()
        sys.stderr.flush()
