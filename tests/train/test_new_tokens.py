"""Which methods learn tokens that the template adds."""

from __future__ import annotations

import pytest

from train.data.new_tokens import require_learnable
from train.stage import StageUserError


def test_what_is_learnt_and_what_is_there_already_passes() -> None:
    require_learnable({"<new>": 7}, "lora")
    require_learnable({}, "p_tuning_v2")
    require_learnable({}, None)


def test_a_method_that_leaves_embeddings_alone() -> None:
    with pytest.raises(StageUserError, match="p_tuning_v2 does not train embeddings"):
        require_learnable({"<new>": 7}, "p_tuning_v2")


def test_a_model_that_is_not_trained() -> None:
    with pytest.raises(StageUserError, match="which the model has never seen; use the model's own template"):
        require_learnable({"<new>": 7}, None)
