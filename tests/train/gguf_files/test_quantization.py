"""What is told of tensors that did not become what was asked for."""

from __future__ import annotations

import pytest

from train.gguf_files.quantization import told
from train.stage import StageUserError


def test_counts_and_names_what_fell_back() -> None:
    types = {"a": "Q4_K", "b": "Q6_K", "c": "Q4_K", "d": "Q5_0", "e": "F16"}
    assert told("q4_k_m", types) == {
        "tensors": {"F16": 1, "Q4_K": 2, "Q5_0": 1, "Q6_K": 1},
        "other_types": ["d", "e"],
    }
    assert told("q8_0", {"a": "Q8_0"}) == {"tensors": {"Q8_0": 1}}


def test_refuses_a_k_quant_of_which_nothing_is_left() -> None:
    with pytest.raises(StageUserError, match=r"multiples of 256.*q8_0"):
        told("q4_k_m", {"a": "Q5_0", "b": "Q8_0"})
