"""The global batch over workers: sequences = per worker × accumulation × workers."""

from __future__ import annotations

from launcher.errors import Problem

#: Sequences per optimizer step where the job says nothing; of 2,048 tokens each they are 65,536 tokens.
DEFAULT_SEQUENCES = 32
_SHOWN = 6  # alternatives listed at most


def default_sequences(unit: int) -> tuple[int, str]:
    """The default global batch where steps are multiples of `unit` sequences: (sequences, reason)."""
    sequences = max(unit, round(DEFAULT_SEQUENCES / unit) * unit)
    if sequences == DEFAULT_SEQUENCES:
        return sequences, f"the default, {DEFAULT_SEQUENCES} sequences per optimizer step"
    return sequences, f"the default of {DEFAULT_SEQUENCES}, to the nearest multiple of {unit}"


def sequences_of_tokens(tokens: int, max_length: int, unit: int) -> tuple[int, str] | None:
    """The multiple of `unit` sequences nearest below `tokens`: (sequences, reason). None: not even `unit`."""
    sequences = tokens // max_length // unit * unit
    if not sequences:
        return None
    used = sequences * max_length
    rounded = "" if used == tokens else f", the most below {tokens:,} that divides into steps of {unit}"
    return sequences, f"{sequences} sequences × {max_length:,} tokens = {used:,} tokens{rounded}"


def arithmetic(micro: int, accumulation: int, workers: int) -> str:
    """`32 sequences = 4 per worker × 4 accumulation × 2 workers`."""
    total = _counted(micro * accumulation * workers, "sequence")
    return f"{total} = {micro} per worker × {accumulation} accumulation × {counted_workers(workers)}"


def counted_workers(workers: int) -> str:
    return _counted(workers, "worker")


def indivisible(where: str, sequences: int, workers: int, micro: int | None) -> Problem | None:
    """The problem of a global batch that does not divide, with the numbers that would; None if it does."""
    unit = workers * (micro or 1)
    if sequences % unit == 0:
        return None
    each = counted_workers(workers) + (f" × {micro} sequences (micro_batch_size)" if micro else "")
    sizes = sorted({max(1, sequences // unit) * unit, (sequences // unit + 1) * unit})
    fitting = [n for n in range(1, workers + 1) if sequences % (n * (micro or 1)) == 0]
    way_out = f"use {_either(sizes)}"
    if fitting:
        way_out += f", or compute.workers: {_either(fitting[-_SHOWN:])}"
    if micro and sequences % workers == 0:
        share = sequences // workers
        way_out += (
            f", or micro_batch_size: {_either([n for n in range(1, share + 1) if share % n == 0][-_SHOWN:])}"
        )
    return Problem(
        where=where,
        what=f"training.global_batch_size: {sequences}",
        why=f"{sequences} sequences do not divide into {each}",
        way_out=way_out,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _either(numbers: list[int]) -> str:
    *first, last = (str(number) for number in numbers)
    return f"{', '.join(first)} or {last}" if first else last
