"""Which sequences each rank sees in each step. Everything follows from (count, seed, epoch, batch sizes), so
a resumed training, another world size, or accumulation instead of a larger batch meets the same sequences in
the same optimizer steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

#: Index of a row with nothing to learn, for a rank that has no sequence left in an epoch's last micro-step:
#: all ranks must run equally many forward passes, or the collectives of sharded weights would wait forever.
FILLER = -1


def epoch_order(count: int, seed: int | None, epoch: int) -> np.ndarray:
    """Indices (count,) of one epoch: a permutation by seed and epoch, or 0..count-1 where seed is None."""
    if seed is None:
        return np.arange(count)
    return np.random.default_rng([seed, epoch]).permutation(count)


def micro_steps_per_epoch(count: int, micro_batch_size: int, world_size: int) -> int:
    return math.ceil(count / (micro_batch_size * world_size))


class RankBatches(Sampler[list[int]]):
    """Batch sampler of one rank: micro-step j holds `order[j·W·m : (j+1)·W·m]`, dealt to the W ranks in
    turn."""

    def __init__(
        self, count: int, micro_batch_size: int, world_size: int, rank: int, *, seed: int | None
    ) -> None:
        self.count, self.micro_batch_size, self.seed = count, micro_batch_size, seed
        self.world_size, self.rank = world_size, rank
        self.epoch = 0

    def __len__(self) -> int:
        return micro_steps_per_epoch(self.count, self.micro_batch_size, self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.count, self.seed, self.epoch)
        width = self.micro_batch_size * self.world_size
        for start in range(0, self.count, width):
            yield order[start : start + width][self.rank :: self.world_size].tolist() or [FILLER]
