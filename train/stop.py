"""Draining: a request to stop, and the ranks' agreement on the step at which they do.

Requests reach single ranks: an object in the store (rank 0 looks for it), SIGTERM to the launcher of the ranks,
a cluster's notice of preemption. All ranks have to stop after the same step, since each step is collective.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

CHECK_EVERY_S = 1.0


def steps_until_check(step_s: float, *, every_s: float = CHECK_EVERY_S, most: int = 1000) -> int:
    """How many steps of `step_s` seconds to take before the ranks ask each other again."""
    return max(1, min(most, int(every_s / max(step_s, 1e-6))))


class StopAgreement:
    """`agreed()` after every step, on every rank: True on all of them after the same step.

    The ranks meet (one small all-reduce) about once a second; rank 0 says after how many steps they meet next,
    so that ranks whose clocks differ still meet at the same one.

    `requested` tells whether this rank knows of a request; it is called at these meetings alone.
    """

    def __init__(
        self,
        requested: Callable[[], bool],
        *,
        rank: int = 0,
        group: ProcessGroup | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requested, self._rank, self._group, self._clock = requested, rank, group, clock
        self._steps_left, self._steps_taken, self._met_at = 1, 0, clock()
        self.stopped = False

    def agreed(self) -> bool:
        self._steps_left -= 1
        self._steps_taken += 1
        if self._steps_left == 0 and not self.stopped:
            self._meet()
        return self.stopped

    def _meet(self) -> None:
        step_s = (self._clock() - self._met_at) / self._steps_taken
        stop, steps = self._greatest(
            int(self._requested()), steps_until_check(step_s) if self._rank == 0 else 0
        )
        self.stopped = bool(stop)
        self._steps_left, self._steps_taken, self._met_at = steps, 0, self._clock()

    def _greatest(self, *values: int) -> list[int]:
        """Each value's maximum over the ranks."""
        if self._group is None:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group)
        return tensor.tolist()
