"""Work in a process of its own: what it takes of memory is given back, and a crash of native code is told
apart from a failure of the stage."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any, TypeVar

from train.processes import die_with_parent, reset_signals
from train.stage import StageError

_TICK_S = 1.0
T = TypeVar("T")


def in_child(
    what: str, function: Callable[..., T], *arguments: Any, tick: Callable[[], None] = lambda: None
) -> T:
    """What `function` returns, called in a process forked off this one; `tick` is called here meanwhile,
    about once a second. Raises StageError, which begins with `what` where it is not the function's own."""
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_call, args=(sender, os.getpid(), function, arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    process.start()
    sender.close()
    try:
        while not receiver.poll(_TICK_S):
            tick()
        try:
            result, error = receiver.recv()
        except EOFError:
            process.join()
            raise _died(what, process.exitcode) from None
    finally:
        process.kill()
        process.join()
    if isinstance(error, StageError):
        raise error
    if error is not None:
        raise StageError(f"{what} failed: {error}", "see the stage's log")
    return result


def _call(sender: Any, parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    die_with_parent(parent)
    reset_signals()
    try:
        answer = (function(*arguments), None)
    except StageError as error:
        answer = (None, type(error)(error.cause, error.advice))
    except BaseException as error:
        traceback.print_exc()
        answer = (None, f"{type(error).__name__}: {error}".splitlines()[0])
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(answer)
    sender.close()


def _died(what: str, code: int | None) -> StageError:
    if code is not None and code < 0:
        advice = "if the machine ran out of memory, give the stage more; see its log"
        return StageError(f"{what} failed: its process was killed by signal {-code}", advice)
    return StageError(f"{what} failed: its process ended with {code}", "see the stage's log")
