"""The global batch of a job."""

from __future__ import annotations

from launcher.planning import batch
from launcher.planning.findings import Findings


def global_batch(found: Findings, workers: int) -> int | None:
    """Sequences per optimizer step; None where they do not divide among `workers`."""
    training, name = found.job.training, "training.global_batch_size"
    unit = workers * (training.micro_batch_size or 1)
    if training.global_batch_size is not None:
        where = found.loaded.where(name)
        problem = batch.indivisible(where, training.global_batch_size, workers, training.micro_batch_size)
        found.problems += [problem] if problem else []
        return None if problem else training.global_batch_size
    if training.global_batch_tokens is None:
        sequences, reason = batch.default_sequences(unit)
        found.say(name, sequences, reason)
        return sequences
    tokens = training.global_batch_tokens
    fitting = batch.sequences_of_tokens(tokens, training.max_length, unit)
    if fitting is None:
        why = f"a step is {unit} sequences × {training.max_length:,} tokens at least"
        way_out = f"use {unit * training.max_length} or more, or fewer workers"
        found.refuse("training.global_batch_tokens", tokens, why, way_out)
        return None
    found.say(name, *fitting)
    return fitting[0]
