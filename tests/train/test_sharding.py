"""How a model that no device holds is spread, and who answers what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BloomConfig, Qwen3Config

from train import sharding
from train.stage import StageError


@given(st.integers(1, 30), st.integers(1, 8))
def test_every_batch_is_somebodys_and_all_have_equally_many_turns(count: int, size: int) -> None:
    batches = [[index, index + 100] for index in range(count)]
    dealt = [sharding.turns(batches, rank, size) for rank in range(size)]
    assert len({len(turns) for turns in dealt}) == 1
    own = [turn.batch for turns in dealt for turn in turns if not turn.is_filler]
    assert sorted(own) == batches
    assert all(len(turn.batch) == 1 for turns in dealt for turn in turns if turn.is_filler)


@pytest.mark.parametrize(
    ("weights", "devices", "expected"), [(10, 8, 1), (80, 8, 1), (81, 8, 2), (200, 8, 4), (200, 3, 3)]
)
def test_as_few_devices_as_hold_it(weights: int, devices: int, expected: int) -> None:
    assert sharding.needed(weights, 80, devices) == expected


def test_a_model_that_all_devices_do_not_hold() -> None:
    with pytest.raises(StageError, match="needs 200 GB to answer, and here are 2 × 80 GB"):
        sharding.needed(200e9, 80 * 10**9, 2)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (Qwen3Config(num_hidden_layers=2, hidden_size=32, vocab_size=8), "model.layers.*"),
        (BloomConfig(n_layer=2, hidden_size=32, vocab_size=8), "transformer.h.*"),
    ],
)
def test_layers_are_gathered_one_by_one_whatever_they_are_called(config: object, layers: str) -> None:
    assert sharding.plan(config, False) == {layers: "free_full_weight"}
