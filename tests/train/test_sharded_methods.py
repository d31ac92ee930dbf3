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
]


def train(root: Path, job: TrainParams) -> dict[str, Any]:
    """In a rank: the tensors that are trained as they lie in the adapter's file (of a method without one, by
    their names), before the training."""
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
    return starts[0]


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
    start = ranks(2, train, tmp_path, job)[0]
    (file,) = (tmp_path / "store" / "train" / "key" / "final").glob("*model.safetensors")
    final = load_file(file)
    single = {n: value for n, value in start.items() if value.numel()}  # ZeRO-3 has split the model's own
    assert single.keys() <= final.keys() and (single or name == "head")
    for tensor_name, before in single.items():
        after = final[tensor_name]
        assert after.shape == before.shape and after.isfinite().all(), tensor_name
        for part_before, part_after in zip(halves(before), halves(after), strict=True):
            assert not torch.equal(part_before.float(), part_after.float()), tensor_name


def halves(tensor: torch.Tensor) -> list[torch.Tensor]:
    return list(tensor.flatten().chunk(2))


class Written:
    """A checkpointer that keeps each rank's files apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, trainer: Any, step: int) -> None:
        trainer.write_checkpoint(self.folder / str(trainer.task.rank))


def checkpoint(root: Path, job: TrainParams) -> None:
    """In a rank: train to the end, and write a checkpoint at it."""
    from train import loop

    loop.train_rank(
        training.task(root, root / "model", root / "prepared", job, checkpointer=Written(root / "checkpoint"))
    )


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", *(pytest.param(name, marks=MATRIX) for name in ("ddp", "zero2", "zero3"))],
)
def test_a_lora_checkpoint_is_at_most_5_percent_of_the_model(
    ranks: Ranks, tmp_path: Path, strategy: Any
) -> None:
    """With its optimizer's state, over all ranks. Of a model so small, FSDP's file headers (0.4 MB) count."""
    training.write_model(tmp_path / "model", vocabulary=160_000)
    training.write_split(tmp_path / "prepared", "train", [[d] for d in training.documents(8)])
    changes: dict[str, Any] = {"strategy": strategy, "epochs": None, "steps": 2, "save_every": 1}
    ranks(2, checkpoint, tmp_path, dataclasses.replace(MERGEABLE["lora"], **changes))
    written = [file.stat().st_size for file in (tmp_path / "checkpoint").rglob("*") if file.is_file()]
    model = sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors"))
    assert 0 < sum(written) <= 0.05 * model


class Kept(Written):
    """A checkpointer whose checkpoints are whole folders, as the store's are."""

    def save(self, trainer: Any, step: int) -> None:
        trainer.write_checkpoint(self.folder / str(step))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()


def resumed(root: Path, job: TrainParams) -> bool:
    """In a rank: train to the end, once without and once with a break, and compare all that was trained."""
    from train import loop, methods

    models: list[Any] = []
    plain_apply = methods.apply
    methods.apply = lambda *arguments: models.append(plain_apply(*arguments)) or models[-1]
    kept = Kept(root / "kept")
    for resume_from in (None, root / "kept" / "2"):
        task = training.task(
            root, root / "model", root / "prepared", job, checkpointer=kept, resume_from=resume_from
        )
        loop.train_rank(task)
    parts = [
        {n: getattr(p, "_local_tensor", p) for n, p in model.named_parameters() if p.requires_grad}
        for model in models
    ]
    return all(torch.equal(value, parts[1][name]) for name, value in parts[0].items())


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        *((name, strategy) for name in ("prefix", "p-tuning v2", "prompt") for strategy in ("ddp", "fsdp")),
        *(
            (name, "ddp")
            for name in ("dora", "pissa", "trained tokens", "ia3", "llama-adapter", "extra layers")
        ),
        ("llama-adapter", "fsdp"),
        ("extra layers", "fsdp"),
    ],
)
def test_a_resumed_training_ends_where_the_whole_one_does(
    ranks: Ranks, tmp_path: Path, name: str, strategy: Any
) -> None:
    write_inputs(tmp_path, name)
    job = dataclasses.replace(CASES[name], strategy=strategy, epochs=None, steps=4, save_every=2)
    if name == "trained tokens":
        job = dataclasses.replace(job, lora=training.LORA)
        (tmp_path / "prepared" / "statistics.json").write_text('{"added_tokens": {"<|a|>": 96}}')
    assert ranks(2, resumed, tmp_path, job) == [True, True]
