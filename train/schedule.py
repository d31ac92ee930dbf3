"""Durations as the user wrote them (epochs, shares, steps) turned into optimizer steps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from artifacts.contract import TrainParams

SCHEDULERS = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}  # transformers' names


@dataclass(frozen=True)
class Schedule:
    steps_per_epoch: int
    max_steps: int
    warmup_steps: int
    evaluate_every: int  # steps
    save_every: int

    def evaluates(self, step: int) -> bool:
        """Also at the very end, so that the report has the final evaluation loss."""
        return step % self.evaluate_every == 0 or step == self.max_steps

    def evaluations(self, after: int, up_to: int) -> int:
        """How many evaluations fell into the steps `after` + 1 to `up_to`."""
        at_the_end = up_to == self.max_steps and self.max_steps % self.evaluate_every != 0 and after < up_to
        return up_to // self.evaluate_every - after // self.evaluate_every + at_the_end

    def saves(self, step: int) -> bool:
        """Not at the end: the final artifact follows at once."""
        return step % self.save_every == 0 and step < self.max_steps


def resolve(params: TrainParams, sequences: int) -> Schedule:
    """The schedule of a training on `sequences` packed (or plain) sequences an epoch.

    An epoch's last step may be smaller. Raises ValueError where there is nothing to train on.
    """
    if sequences < 1:
        raise ValueError("the prepared training split is empty")
    per_step = params.micro_batch_size * params.gradient_accumulation_steps * params.world_size
    steps_per_epoch = math.ceil(sequences / per_step)
    if params.steps is not None:
        max_steps = params.steps
    else:
        max_steps = max(1, _whole_steps((params.epochs or 1) * steps_per_epoch))
    if params.warmup_steps is not None:
        warmup_steps = min(params.warmup_steps, max_steps)
    else:
        warmup_steps = _whole_steps((params.warmup_share or 0) * max_steps)
    return Schedule(
        steps_per_epoch=steps_per_epoch,
        max_steps=max_steps,
        warmup_steps=warmup_steps,
        evaluate_every=interval(params.evaluate_every, steps_per_epoch),
        save_every=interval(params.save_every, steps_per_epoch),
    )


def _whole_steps(steps: float) -> int:
    """Rounded up, but for what is only a rounding error: 0.07 × 100 is 7.000000000000001 in binary."""
    return math.ceil(round(steps, 6))


def interval(every: float | None, steps_per_epoch: int) -> int:
    """Steps between two events: None is an epoch, below 1 a share of it, else steps."""
    if every is None:
        return steps_per_epoch
    if every < 1:
        return max(1, round(every * steps_per_epoch))
    return int(every)
