"""What the engines share: the request, how ranks end, and whether the group is started again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from artifacts.contract import EXIT_FAILED, EXIT_USER_ERROR
from artifacts.download import InputError
from train.stage import StageError, StageUserError

#: Restarts of the group in a row without a new checkpoint in between.
MAX_FRUITLESS_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """What a rank needs to know to build its training task. Plain values: it travels to other machines."""

    plan_json: bytes
    run_id: str
    work: str  # scratch folder, on the rank's machine
    attempt: int = 0  # claimed by the engine for each start of the group


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one rank of one attempt ended, as it told the store itself; a killed rank tells nothing.

    `drained`: with a `cause` where its machine was asked to stop, and not the run; no rank is to start there
    again. `failed`: an exception of the training. `disconnected`: another rank was gone. `refused`: an
    exception that a restart would only repeat.
    """

    rank: int
    kind: Literal["done", "drained", "failed", "disconnected", "refused"]
    cause: str = ""
    advice: str = ""
    exit_code: int = 0
    machine: str = ""  # the engine's id of the rank's machine


# gloo and NCCL say so, each in its own words, when another rank is gone.
_DISCONNECTED = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|connectFullMesh|remote process exited|"
    r"recvValue failed|socket (timeout|closed)|NCCL error|timed out",
    re.IGNORECASE,
)

# Mistakes of a program or its input: they come again. Machines and networks fail with others.
_REPEATED = (ValueError, TypeError, LookupError, AttributeError, ImportError, AssertionError)


def ending_of(error: BaseException, rank: int) -> Ending:
    """How a rank ended that `error` ended."""
    if isinstance(error, StageError):
        return Ending(
            rank=rank, kind="refused", cause=error.cause, advice=error.advice, exit_code=error.exit_code
        )
    if isinstance(error, InputError):
        return Ending(
            rank=rank, kind="refused", cause=error.cause, advice=error.advice, exit_code=EXIT_FAILED
        )
    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, _REPEATED):
        return Ending(rank=rank, kind="refused", cause=cause, exit_code=EXIT_FAILED)
    gone = isinstance(error, ConnectionError) or (
        isinstance(error, RuntimeError) and _DISCONNECTED.search(str(error)) is not None
    )
    return Ending(rank=rank, kind="disconnected" if gone else "failed", cause=cause)


@dataclass(frozen=True)
class Restart:
    reason: str


@dataclass(frozen=True)
class GiveUp:
    cause: str
    advice: str
    exit_code: int = EXIT_FAILED

    def error(self) -> StageError:
        return (StageUserError if self.exit_code == EXIT_USER_ERROR else StageError)(self.cause, self.advice)


def fruitless_restarts(next_attempt: int, first_attempt: int, newest_attempt: int) -> int:
    """Restarts since this launch's start or since `newest_attempt`, which saved the newest checkpoint (0:
    there is none), without counting the one to decide on."""
    return next_attempt - 1 - max(first_attempt, newest_attempt)


def decide(
    endings: Sequence[Ending], *, world_size: int, killed: str, fruitless: int, stopping: bool = False
) -> Restart | GiveUp:
    """What follows when the group broke.

    `killed`: the first end that the engine saw, where that was a kill (`rank 1 was killed by SIGKILL`): what
    other ranks say is then what came of it. `fruitless`: see `fruitless_restarts`. `stopping`: the group was
    asked to stop.
    """
    for ending in endings:
        if ending.kind == "refused":
            return GiveUp(ending.cause, ending.advice, ending.exit_code)
    failed = next((ending for ending in endings if ending.kind == "failed" and not killed), None)
    if failed:
        reason = f"rank {failed.rank} failed: {failed.cause}"
    else:
        reason = killed or _silence(endings, world_size)
    if stopping:
        return GiveUp(f"{reason}, while stopping", "resume continues from the newest checkpoint")
    # What a rank itself reports happens again more often than not: one more try. Kills come from outside.
    if fruitless >= (1 if failed else MAX_FRUITLESS_RESTARTS):
        advice = failed.advice if failed else "look into the log; too little memory is the usual reason"
        return GiveUp(f"{reason} (after {fruitless} restarts without a new checkpoint)", advice)
    return Restart(reason)


def _silence(endings: Sequence[Ending], world_size: int) -> str:
    """Of the ranks that could not even say how they ended."""
    silent = sorted(set(range(world_size)) - {ending.rank for ending in endings})
    if not silent:
        return "the ranks lost each other"
    return f"rank {', '.join(map(str, silent))} died without a word: killed, or its machine was lost"
