"""Early stopping and the best model: decided alike on all ranks, and over again after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from artifacts.local import LocalStore
from artifacts.manifest import local_folder
from tests.train import training
from tests.train.conftest import Ranks
from tests.train.training import LORA, params
from train.checkpoint import listed

STEPS, PATIENCE = 40, 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few records of random tokens: they are soon learnt by heart, and others predicted worse and worse."""
    root = tmp_path_factory.mktemp("boundary")
    training.write_model(root / "model", tied=False)
    training.write_split(root / "prepared", "train", [[document] for document in training.documents(4)])
    training.write_split(root / "prepared", "eval", [[one] for one in training.documents(4, seed=1)])
    return root


def job(strategy: str, method: str, **changes: Any) -> Any:
    world_size = 1 if strategy == "single" else 2
    values = {
        "strategy": strategy,
        "world_size": world_size,
        "micro_batch_size": 4 // world_size,
        "method": method,
        "lora": LORA if method == "lora" else None,
        "schedule": "constant",
        "learning_rate": 3e-3 if method == "full" else 1e-2,
        "steps": STEPS,
        "evaluate_every": 1,
        "save_every": 1000,
        "keep": 1,
    }
    return params(**values | changes)


def train(root: Path, task_params: Any, last_step: int = STEPS) -> tuple[Any, dict[int, float]]:
    """In a rank: (outcome, evaluation loss by step), with the checkpoints of a real run. Stopped on request
    after `last_step`."""
    import os

    import torch.distributed as dist

    from train import loop, metrics, strategies
    from train.checkpoint import Checkpoints

    strategies.start_process_group(task_params.world_size, on_gpu=False, strategy=task_params.strategy)
    rank = int(os.environ["RANK"])
    store = LocalStore(root / "store")
    attempt = 1 + max((name.attempt for name in listed(store, "train/key")), default=0)
    checkpoints = Checkpoints(
        store,
        "train/key",
        attempt=attempt,
        keep=task_params.keep,
        staging=root / f"staging-{rank}",
        rank=rank,
        world_size=task_params.world_size,
        group=dist.new_group(backend="gloo") if task_params.world_size > 1 else None,
    )
    done = [0]
    task = training.task(
        root,
        root.parent / "model",
        root.parent / "prepared",
        task_params,
        checkpointer=checkpoints,
        attempt=attempt,
        resume_from=checkpoints.resume_folder(),
        on_step=lambda step: done.append(step),
        should_stop=lambda: done[-1] + 1 == last_step,
    )
    outcome = loop.train_rank(task)
    rows = metrics.merged_from(store, "train/key")
    return outcome, {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}


def final(root: Path) -> Path:
    return local_folder(LocalStore(root / "store"), "train/key/final")


@pytest.mark.parametrize(
    ("strategy", "method"),
    [
        ("single", "full"),
        pytest.param("fsdp", "full", marks=pytest.mark.matrix),
        pytest.param("zero3", "full", marks=pytest.mark.matrix),
        pytest.param("zero2", "lora", marks=pytest.mark.matrix),
        pytest.param("ddp", "lora", marks=pytest.mark.matrix),
    ],
)
def test_stops_early_with_the_best_weights(ranks: Ranks, inputs: Path, strategy: str, method: str) -> None:
    root = inputs / f"best-{strategy}-{method}"
    wanted = job(strategy, method, early_stopping=PATIENCE, best_model=True)
    answers = ranks(wanted.world_size, train, root, wanted)
    losses = answers[0][1]
    best = min(losses, key=losses.__getitem__)
    assert 1 < best < STEPS - PATIENCE, "the loss is to fall and rise"
    assert {(each.ending, each.step) for each, _ in answers} == {("done", best + PATIENCE)}
    assert [name.step for name in listed(LocalStore(root / "store"), "train/key")] == [best]

    plain = job(strategy, method, steps=best, evaluate_every=1000)
    ranks(wanted.world_size, train, inputs / f"{root.name}-plain", plain)
    file = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    kept, expected = (load_file(final(path) / file) for path in (root, inputs / f"{root.name}-plain"))
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


def test_patience_survives_a_resume(ranks: Ranks, inputs: Path) -> None:
    """Stopped on request one evaluation after the best, it ends where it would have ended."""
    wanted = job("single", "full", early_stopping=PATIENCE)
    ((whole, losses),) = ranks(1, train, inputs / "whole", wanted)
    best = min(losses, key=losses.__getitem__)
    ((stopped, _),) = ranks(1, train, inputs / "parts", wanted, best + 1)
    assert (stopped.ending, stopped.step) == ("drained", best + 1)
    ((resumed, again),) = ranks(1, train, inputs / "parts", wanted)
    assert (resumed.ending, resumed.step) == ("done", whole.step) == ("done", best + PATIENCE)
    assert again == losses
    rows = load_file(final(inputs / "parts") / "model.safetensors")
    assert all(
        torch.equal(tensor, rows[name])
        for name, tensor in load_file(final(inputs / "whole") / "model.safetensors").items()
    )


def without_evaluation(root: Path, task_params: Any) -> str:
    from train.stage import StageUserError

    task = training.task(root, root.parent / "model", root / "prepared", task_params)
    training.write_split(root / "prepared", "train", [[one] for one in training.documents(2)])
    with pytest.raises(StageUserError) as caught:
        from train.loop import train_rank

        train_rank(task)
    return str(caught.value)


def test_nothing_to_tell_the_best_by(ranks: Ranks, inputs: Path) -> None:
    (text,) = ranks(1, without_evaluation, inputs / "none", job("single", "full", best_model=True))
    assert "no evaluation records" in text and "data.eval" in text
