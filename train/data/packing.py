"""Packing: which documents share a sequence. Pure functions over lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.data.shards import Rows
from train.data.tokenize import Document


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items into as few bins as best-fit-decreasing finds: longest first, each into the fullest bin that
    still holds it. Never more than 11/9 of the optimum + 1 (Johnson 1974).

    Returns bins of indices into `lengths`, in the order in which the bins were opened; equal input gives
    equal output. `capacity` and `lengths` are in tokens, each length between 1 and `capacity` (ValueError).
    O(n log n) for the sort, then O(capacity / 64) machine words per item: the free spaces of the open bins
    are the bits of one integer.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist()
    if order and not 1 <= min(lengths) <= max(lengths) <= capacity:
        raise ValueError(f"lengths {min(lengths)} to {max(lengths)} don't fit 1 to {capacity}")
    bins: list[list[int]] = []
    by_free: list[list[int]] = [[] for _ in range(capacity + 1)]  # numbers of the open bins, by free space
    free_spaces = 0  # bit n set: a bin with n free tokens is open
    for item in order:
        length = lengths[item]
        fitting = free_spaces >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1  # lowest set bit: the fullest bin
            number = by_free[free].pop()
            if not by_free[free]:
                free_spaces ^= 1 << free
            bins[number].append(item)
        else:
            free, number = capacity, len(bins)
            bins.append([item])
        if free > length:
            by_free[free - length].append(number)
            free_spaces |= 1 << (free - length)
    return bins


def pack(
    documents: Sequence[Document], max_length: int, *, packing: bool, random: np.random.Generator
) -> Rows:
    """Documents of at most `max_length` tokens to sequences, shuffled by `random`; unpacked, one each."""
    bins = (
        best_fit_decreasing([len(document) for document in documents], max_length)
        if packing
        else [[index] for index in range(len(documents))]
    )
    bins = [bins[number] for number in random.permutation(len(bins))]
    members = [documents[index] for row in bins for index in row]
    lengths = np.array([len(document) for document in members], np.int32)
    document_starts = _starts(np.array([len(row) for row in bins], np.int32))
    return Rows(
        input_ids=_concatenated([document.input_ids for document in members]),
        labels=_concatenated([document.labels for document in members]),
        row_starts=_starts(lengths)[document_starts],
        document_lengths=lengths,
        document_starts=document_starts,
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
