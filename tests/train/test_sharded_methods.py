"""What is saved of a method whose weights were spread over two ranks: every tensor whole, and learnt on each
rank's part of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from artifacts.contract import TrainParams
from tests.train import method_cases, training
from tests.train.conftest import Ranks
from tests.train.method_cases import MERGEABLE, WHOLE

MATRIX = pytest.mark.matrix
CASES = {**method_cases.ADAPTERS, **WHOLE}
CELLS = [
    *(("lora", strategy) for strategy in ("fsdp", "zero3")),
    *(
        pytest.param(name, strategy, marks=MATRIX)
        for name in ("dora", "saved modules", "ia3", *method_cases.BESIDE, "head", "extra layers")
        for strategy in ("fsdp", "zero3")
    ),
    *(pytest.param("added tokens", strategy, marks=MATRIX) for strategy in ("ddp", "fsdp", "zero3")),
    pytest.param("pissa", "fsdp", marks=MATRIX),
]


def train(root: Path, job: TrainParams) -> tuple[dict[str, Any], dict[str, Any]]:
    """In a rank: the tensors that are trained as they lie in the adapter's file (of a method without one, by
    their names), before the training and after it."""
    from train import loop, methods
    from train.methods import saved

    starts: list[dict[str, Any]] = []
    plain_apply = methods.apply

    def apply(*arguments: Any) -> Any:
        made = plain_apply(*arguments)
        weights = {n: p.detach().clone() for n, p in made.named_parameters() if p.requires_grad}
        adapter = hasattr(made, "peft_config")
        starts.append(saved.layout(made, weights, for_base=True)[0] if adapter else weights)
        return made

    methods.apply = apply
    loop.train_rank(training.task(root, root / "model", root / "prepared", job))
    folder = root / "store" / "train" / "key" / "final"
    (file,) = folder.glob("*model.safetensors")
    return starts[0], load_file(file)


def write_inputs(root: Path, name: str) -> None:
    training.write_model(root / "model", tied=True)
    rows = [[document] for document in training.documents(16)]
    training.write_split(root / "prepared", "train", rows)
    if name == "added tokens":
        (root / "prepared" / "statistics.json").write_text('{"added_tokens": {"<|a|>": 96, "<|b|>": 97}}')


@pytest.mark.parametrize(("name", "strategy"), CELLS)
def test_every_saved_tensor_is_whole_and_learnt_on_each_rank(
    ranks: Ranks, tmp_path: Path, name: str, strategy: Any
) -> None:
    write_inputs(tmp_path, name)
    job = dataclasses.replace(
        MERGEABLE["lora"] if name == "added tokens" else CASES[name], strategy=strategy, epochs=None, steps=4
    )
    start, final = ranks(2, train, tmp_path, job)[0]
    single = {n: value for n, value in start.items() if value.numel()}  # ZeRO-3 has split the model's own
    assert single.keys() <= final.keys() and (single or name == "head")
    for tensor_name, before in single.items():
        after = final[tensor_name]
        assert after.shape == before.shape and after.isfinite().all(), tensor_name
        for part_before, part_after in zip(halves(before), halves(after), strict=True):
            assert not torch.equal(part_before.float(), part_after.float()), tensor_name


def halves(tensor: torch.Tensor) -> list[torch.Tensor]:
    return list(tensor.flatten().chunk(2))
