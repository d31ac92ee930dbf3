"""Rows of a prepared split to the tensors of one forward pass.

No batch carries an attention mask. A packed row's documents are told apart by their position ids alone, which
start again at 0: transformers isolates them only when there is no mask and no cache. Padding lies on the
right, where a causal model's real tokens never look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from artifacts.contract import IGNORED_LABEL
from train.data.order import FILLER

_FILLER_TOKENS = 2
#: Any id will do, as nothing looks at padding; some models declare none, or -1, which is no token.
_PADDING_ID = 0


class Rows(torch.utils.data.Dataset[Mapping[str, np.ndarray]]):
    """A prepared split as a dataset that also has the `FILLER` row: a few tokens, nothing to learn."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Mapping[str, np.ndarray]:
        if index != FILLER:
            return self.split[index]
        tokens = self.split[0]["input_ids"][:_FILLER_TOKENS]
        return {
            "input_ids": tokens,
            "labels": np.full_like(tokens, IGNORED_LABEL),
            "document_lengths": np.array([len(tokens)], dtype=np.int32),
        }


def positions(document_lengths: np.ndarray) -> np.ndarray:
    """Position ids (T,) of a row, restarting at 0 with each document; T is the sum of the lengths."""
    ends = np.cumsum(document_lengths)
    starts = np.repeat(ends - document_lengths, document_lengths)
    return np.arange(ends[-1] if len(ends) else 0) - starts


def targets(labels: np.ndarray, document_lengths: np.ndarray) -> np.ndarray:
    """What each position has to predict, (T,): the next label of its own document, `IGNORED_LABEL` at its
    end."""
    shifted = np.full(len(labels), IGNORED_LABEL, dtype=np.int64)
    shifted[:-1] = labels[1:]
    shifted[np.cumsum(document_lengths) - 1] = IGNORED_LABEL
    return shifted


class Collator:
    """Makes `input_ids`, `position_ids`, `targets` (B, T) int64 and `real_tokens`, a count, of B rows.

    With `flatten` the rows become one row (1, ΣT) without any padding: what variable-length flash attention
    takes. Otherwise rows are padded on the right to the longest, positions going on (so that padding starts
    no further document).
    """

    def __init__(self, *, flatten: bool = False) -> None:
        self.flatten = flatten

    def __call__(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
        columns = [
            (
                row["input_ids"].astype(np.int64),
                positions(row["document_lengths"]),
                targets(row["labels"], row["document_lengths"]),
            )
            for row in rows
        ]
        real_tokens = sum(len(tokens) for tokens, _, _ in columns)
        if self.flatten:
            arrays = [np.concatenate(column)[None] for column in zip(*columns, strict=True)]
        else:
            length = max(len(tokens) for tokens, _, _ in columns)
            arrays = [
                np.stack(column) for column in zip(*(self._pad(row, length) for row in columns), strict=True)
            ]
        input_ids, position_ids, target_ids = map(torch.from_numpy, arrays)
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "targets": target_ids,
            "real_tokens": real_tokens,
        }

    def _pad(self, row: tuple[np.ndarray, ...], length: int) -> tuple[np.ndarray, ...]:
        tokens, position_ids, target_ids = row
        missing = length - len(tokens)
        if not missing:
            return row
        next_positions = position_ids[-1] + 1 + np.arange(missing)
        return (
            np.concatenate([tokens, np.full(missing, _PADDING_ID)]),
            np.concatenate([position_ids, next_positions]),
            np.concatenate([target_ids, np.full(missing, IGNORED_LABEL)]),
        )
