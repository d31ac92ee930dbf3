import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.contract import IGNORED_LABEL
from train.data.packing import best_fit_decreasing, pack
from train.data.tokenize import Document

capacities_and_lengths = st.integers(1, 300).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=200))
)


@given(capacities_and_lengths)
def test_nothing_is_lost_and_nothing_overflows(case):
    capacity, lengths = case
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= capacity for row in bins)


@given(capacities_and_lengths)
def test_no_two_sequences_would_fit_into_one(case):
    capacity, lengths = case
    sizes = sorted(sum(lengths[index] for index in row) for row in best_fit_decreasing(lengths, capacity))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > capacity


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7))
def test_within_the_proven_bound_of_the_optimum(lengths):
    assert len(best_fit_decreasing(lengths, 20)) <= 11 / 9 * fewest_bins(lengths, 20) + 1


def fewest_bins(lengths: list[int], capacity: int) -> int:
    """By trying: each item into each open bin or a new one."""

    def place(rest: list[int], free: tuple[int, ...]) -> int:
        if not rest:
            return len(free)
        options = [
            place(rest[1:], (*free[:i], space - rest[0], *free[i + 1 :]))
            for i, space in enumerate(free)
            if space >= rest[0]
        ]
        return min([*options, place(rest[1:], (*free, capacity - rest[0]))])

    return place(lengths, ())


def test_best_fit_takes_the_fullest_bin_that_holds_the_item():
    assert best_fit_decreasing([7, 6, 3, 4], 10) == [[0, 2], [1, 3]]
    assert best_fit_decreasing([5, 5, 5], 10) == [[0, 1], [2]]
    assert best_fit_decreasing([], 10) == []


def test_chat_like_lengths_leave_little_padding():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 0.8, 20_000), 10, 2048).astype(int).tolist()
    bins = best_fit_decreasing(lengths, 2048)
    assert 1 - sum(lengths) / (len(bins) * 2048) < 0.001


@pytest.mark.parametrize("lengths", [[11], [0, 3], [-1]])
def test_lengths_outside_the_capacity_are_refused(lengths):
    with pytest.raises(ValueError, match="don't fit 1 to 10"):
        best_fit_decreasing(lengths, 10)


def documents(lengths: list[int]) -> list[Document]:
    """Document i repeats the token i; its last token is learnt."""
    made = []
    for index, length in enumerate(lengths):
        labels = np.full(length, IGNORED_LABEL, np.int32)
        labels[-1] = index
        made.append(Document(np.full(length, index, np.int32), labels))
    return made


@pytest.mark.parametrize("packing", [True, False])
def test_rows_hold_whole_documents_with_their_labels(packing):
    lengths = [5, 3, 9, 2, 2, 7, 1]
    rows = pack(documents(lengths), 10, packing=packing, random=np.random.default_rng(0))
    seen = []
    for number in range(len(rows)):
        row = rows.slice(number, number + 1)
        starts = np.cumsum([0, *row.document_lengths])
        assert starts[-1] == len(row.input_ids) == len(row.labels) <= 10
        for start, stop in itertools.pairwise(starts):
            (index,) = set(row.input_ids[start:stop].tolist())
            assert row.labels[start:stop].tolist() == [IGNORED_LABEL] * (stop - start - 1) + [index]
            assert stop - start == lengths[index]
            seen.append(index)
    assert sorted(seen) == list(range(7))
    assert len(rows) == (3 if packing else 7)


def test_the_order_of_rows_comes_from_the_seed():
    def order(seed: int) -> list[int]:
        rows = pack(documents([9] * 50), 10, packing=True, random=np.random.default_rng(seed))
        return rows.input_ids[rows.row_starts[:-1]].tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_no_documents_make_no_rows():
    assert len(pack([], 10, packing=True, random=np.random.default_rng(0))) == 0
