"""Starts of the group of ranks, one after the other, until one ends well or it is no use to go on. What the
engines share: how a group is started is theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from train.attempts import claim_attempt, read_endings
from train.checkpoint import newest
from train.engines.base import GiveUp, RankJob, decide, fruitless_restarts
from train.stage import StageContext


def supervise(
    job: RankJob,
    context: StageContext,
    launch: Callable[[RankJob], str | None],
    *,
    stopping: Callable[[], bool],
) -> str:
    """Run the ranks to their end: "done" or "drained". Raises StageError when it is no use to go on.

    `launch` runs one attempt: None when every rank ended well, else which one was seen to be killed, in
    words, or "". `stopping`: whether the whole group is asked to stop, and not one of its machines.
    """
    store, prefix = context.store, f"train/{context.stage.key}"
    first_attempt = attempt = claim_attempt(store, prefix)
    while True:
        killed = launch(dataclasses.replace(job, attempt=attempt))
        endings = read_endings(store, prefix, attempt)
        if killed is None:
            reason = next((ending.cause for ending in endings if ending.cause), "")
            if not reason or stopping():
                return endings[0].kind
        attempt = claim_attempt(store, prefix)
        if killed is not None:
            saved = newest(store, prefix)
            decision = decide(
                endings,
                world_size=context.stage.params.world_size,
                killed=killed,
                fruitless=fruitless_restarts(attempt, first_attempt, saved.attempt if saved else 0),
                stopping=stopping(),
            )
            if isinstance(decision, GiveUp):
                raise decision.error()
            reason = decision.reason
        context.events.say("restarted", reason=reason, attempt=attempt)
