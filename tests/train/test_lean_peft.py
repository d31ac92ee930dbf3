"""A run imports the quantization library that it uses, and no other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.train import training
from tests.train.conftest import Ranks
from train import lean_peft, loop

OPTIONAL = {"bitsandbytes", "gptqmodel", "optimum", "torchao"}


def imported(root: Path, job: Any) -> set[str]:
    """In a rank, a fork of a process that has preloaded what every rank needs."""
    loop.train_rank(training.task(root, root / "model", root / "prepared", job))
    return OPTIONAL & set(sys.modules)


def found(quantization: Any) -> list[bool]:
    """In a rank: PEFT's answers for bitsandbytes and gptqmodel."""
    lean_peft.prepare(quantization)
    from peft import import_utils

    return [import_utils.is_bnb_available(), import_utils.is_gptqmodel_available()]


def test_training_a_plain_base_imports_none(ranks: Ranks, tmp_path: Path) -> None:
    training.write_model(tmp_path / "model")
    training.write_split(tmp_path / "prepared", "train", training.pack(training.documents(8), 48))
    job = training.params(method="lora", lora=training.LORA, world_size=1, strategy="ddp")
    assert ranks(1, imported, tmp_path, job) == [set()]


def test_what_was_hidden_is_found_once_it_is_wanted(ranks: Ranks) -> None:
    assert [ranks(1, found, wanted)[0] for wanted in ("none", "gptq")] == [[False, False], [False, True]]
