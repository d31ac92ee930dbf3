"""Data order and collating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.contract import IGNORED_LABEL
from train.data.collate import Collator, Rows, positions, targets
from train.data.order import FILLER, RankBatches, epoch_order, micro_steps_per_epoch

X = IGNORED_LABEL


def row(ids: list[int], labels: list[int], lengths: list[int]) -> dict[str, np.ndarray]:
    return {
        "input_ids": np.array(ids, np.int32),
        "labels": np.array(labels, np.int32),
        "document_lengths": np.array(lengths, np.int32),
    }


TWO_DOCUMENTS = row([5, 6, 7, 8, 9], [X, 6, 7, 8, 9], [3, 2])
ONE_DOCUMENT = row([1, 2, 3], [X, X, 3], [3])


def test_positions_restart_with_each_document() -> None:
    assert positions(np.array([3, 2])).tolist() == [0, 1, 2, 0, 1]


def test_no_target_crosses_a_document_boundary() -> None:
    # position 2 would otherwise have to predict 8, the next document's first token
    assert targets(TWO_DOCUMENTS["labels"], TWO_DOCUMENTS["document_lengths"]).tolist() == [6, 7, X, 9, X]


def test_padding_is_right_and_starts_no_document() -> None:
    batch = Collator()([TWO_DOCUMENTS, ONE_DOCUMENT])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert batch["targets"].tolist() == [[6, 7, X, 9, X], [X, 3, X, X, X]]
    assert batch["real_tokens"] == 8
    assert "attention_mask" not in batch


def test_flattened_rows_have_no_padding() -> None:
    batch = Collator(flatten=True)([TWO_DOCUMENTS, ONE_DOCUMENT])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch["targets"].tolist() == [[6, 7, X, 9, X, X, 3, X]]


def test_filler_has_nothing_to_learn() -> None:
    rows = Rows([TWO_DOCUMENTS, ONE_DOCUMENT])
    assert len(rows) == 2
    batch = Collator()([rows[FILLER]])
    assert batch["input_ids"].shape == (1, 2)
    assert batch["targets"].tolist() == [[X, X]]


@pytest.mark.parametrize("seed", [0, 7])
def test_epochs_are_different_permutations_and_repeatable(seed: int) -> None:
    first, second = epoch_order(50, seed, 0), epoch_order(50, seed, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_order(50, seed, 0).tolist()


def steps(count: int, micro: int, accumulation: int, world: int) -> list[set[int]]:
    """The sequences of each optimizer step, over all ranks."""
    ranks = [list(RankBatches(count, micro, world, rank, seed=1)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1, "ranks must take equally many forward passes"
    assert len(ranks[0]) == micro_steps_per_epoch(count, micro, world)
    micro_steps = list(zip(*ranks, strict=True))
    return [
        {i for batches in micro_steps[start : start + accumulation] for batch in batches for i in batch}
        - {FILLER}
        for start in range(0, len(micro_steps), accumulation)
    ]


@given(
    count=st.integers(1, 70),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    world=st.integers(1, 4),
)
def test_steps_hold_the_same_sequences_however_they_are_dealt(
    count: int, micro: int, accumulation: int, world: int
) -> None:
    dealt = steps(count, micro, accumulation, world)
    assert dealt == steps(count, micro * accumulation * world, 1, 1)
    assert sorted(i for step in dealt for i in step) == list(range(count))


def test_a_rank_without_sequences_gets_a_filler() -> None:
    assert list(RankBatches(3, 2, 2, 1, seed=None)) == [[1]]
    assert list(RankBatches(5, 2, 2, 1, seed=None)) == [[1, 3], [FILLER]]
