"""Strategies give the same training as ddp, and really spread what they say they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import local_folder
from tests.train import training
from tests.train.conftest import Ranks
from tests.train.training import LORA, params
from train import strategies
from train.stage import StageUserError

#: With what offload.
STRATEGIES = {"fsdp": "params", "zero1": "optimizer", "zero2": "optimizer", "zero3": "params"}


def job(strategy: str, method: str, **changes: Any) -> Any:
    """Steps of 8 sequences; `single` and `hybrid` have one rank and four."""
    hybrid = strategy == "hybrid"
    values = {
        "strategy": "fsdp" if hybrid else strategy,
        "sharding": "hybrid" if hybrid else "full",
        "world_size": {"single": 1, "hybrid": 4}.get(strategy, 2),
        "micro_batch_size": {"single": 4, "hybrid": 1}.get(strategy, 2),
        "gradient_accumulation_steps": 2,
        "method": method,
        "lora": LORA if method == "lora" else None,
        "offload": STRATEGIES.get(strategy, "none"),
        "learning_rate": 1e-3,
    }
    return params(**values | changes)


def train(root: Path, task_params: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """In a rank: metric rows, and how many elements of weights and of optimizer state it holds. Hybrid
    sharding has two ranks a node."""
    import os

    from train import metrics, trainer

    if task_params.sharding == "hybrid":
        os.environ["LOCAL_WORLD_SIZE"] = "2"

    held: dict[str, Any] = {}

    class Watched(trainer.RankTrainer):
        def write_final(self) -> None:
            held.update(local_elements(self))
            super().write_final()

    trainer.RankTrainer = Watched
    from train import loop

    mine = training.task(root, root.parent / "model", root.parent / "prepared", task_params)
    loop.train_rank(mine)
    return metrics.merged_from(mine.store, mine.prefix), held


def local_elements(trainer: Any) -> dict[str, Any]:
    import torch
    from torch.distributed.tensor import DTensor

    parameters = list(trainer.accelerator.unwrap_model(trainer.model).parameters())

    def local(parameter: Any) -> int:
        if isinstance(parameter, DTensor):
            return parameter.to_local().numel()
        return parameter.ds_tensor.numel() if hasattr(parameter, "ds_tensor") else parameter.numel()

    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    moments = [state["exp_avg"] for state in optimizer.state.values() if "exp_avg" in state]
    meshes = {parameter.device_mesh.shape for parameter in parameters if isinstance(parameter, DTensor)}
    return {
        "dtensors": sum(isinstance(parameter, DTensor) for parameter in parameters),
        "parameters": len(parameters),
        "meshes": meshes,
        "group": torch.distributed.is_initialized(),
        "weights": sum(map(local, parameters)),
        "moments": sum(m.to_local().numel() if isinstance(m, DTensor) else m.numel() for m in moments),
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strategies")
    training.write_model(root / "model", tied=False)
    # Steps of 8, 8 and 2 rows: an epoch's last one has fewer micro-batches than are accumulated otherwise.
    training.write_split(root / "prepared", "train", training.pack(training.documents(60), 48)[:18])
    training.write_split(root / "prepared", "eval", training.pack(training.documents(9, seed=1), 48))
    return root


@pytest.fixture(scope="module", params=["full", "lora"])
def ddp(request: pytest.FixtureRequest, ranks: Ranks, inputs: Path) -> tuple[str, Any]:
    return request.param, ranks(2, train, inputs / f"ddp-{request.param}", job("ddp", request.param))


def adapter(root: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(
        local_folder(LocalStore(root / "store"), "train/key/final") / "adapter_model.safetensors"
    )


def assert_equal_rows(got_rows: list[dict[str, Any]], wanted_rows: list[dict[str, Any]]) -> None:
    for key in ("loss", "grad_norm", "eval_loss"):
        got, wanted = ([row[key] for row in rows if key in row] for rows in (got_rows, wanted_rows))
        assert len(got) == {"eval_loss": 2}.get(key, 4)
        assert got == pytest.approx(wanted, rel=1e-5), key


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_ddp_and_is_spread(ranks: Ranks, inputs: Path, ddp: tuple[str, Any], strategy: str) -> None:
    method, reference = ddp
    root = inputs / f"{strategy}-{method}"
    answers = ranks(2, train, root, job(strategy, method))
    assert_equal_rows(answers[0][0], reference[0][0])
    whole = reference[0][1]
    held = [answer[1] for answer in answers]
    if strategy == "fsdp":
        assert all(one["dtensors"] == one["parameters"] for one in held)
    if strategy in ("fsdp", "zero3"):
        assert all(one["weights"] < 0.6 * whole["weights"] for one in held)
    assert all(one["moments"] < 0.6 * whole["moments"] for one in held)
    if method == "lora":
        check_adapter(adapter(root), adapter(inputs / "ddp-lora"))


def test_one_worker_equals_two(ranks: Ranks, inputs: Path, ddp: tuple[str, Any]) -> None:
    method, reference = ddp
    ((rows, held),) = ranks(1, train, inputs / f"single-{method}", job("single", method))
    assert_equal_rows(rows, reference[0][0])
    assert not held["group"], "one rank needs no process group"


@pytest.mark.matrix
def test_hybrid_sharding_equals_ddp(ranks: Ranks, inputs: Path, ddp: tuple[str, Any]) -> None:
    """Two nodes of two ranks: a node holds each weight once, half of it on each of its ranks."""
    method, reference = ddp
    root = inputs / f"hybrid-{method}"
    answers = ranks(4, train, root, job("hybrid", method))
    assert_equal_rows(answers[0][0], reference[0][0])
    whole = reference[0][1]["weights"]
    for _, held in answers:
        assert held["meshes"] == {(2, 2)}
        assert 0.4 * whole < held["weights"] < 0.6 * whole
    if method == "lora":
        check_adapter(adapter(root), adapter(inputs / "ddp-lora"))


@pytest.mark.parametrize(("ranks_of_a_node", "expected"), [(8, 8), (4, 4), (16, 8)])
def test_hybrid_sharding_is_over_a_node(ranks_of_a_node: int, expected: int) -> None:
    job = params(strategy="fsdp", sharding="hybrid", world_size=8)
    assert strategies.shard_group_size(job, ranks_of_a_node) == expected
    full = params(strategy="fsdp", world_size=8)
    assert strategies.shard_group_size(full, ranks_of_a_node) == 8


def test_hybrid_sharding_needs_equal_nodes() -> None:
    with pytest.raises(StageUserError, match="8 do not divide into 3 a node"):
        strategies.shard_group_size(params(strategy="fsdp", sharding="hybrid", world_size=8), 3)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("optimizer", "strategy"),
    [
        ("adafactor", "fsdp"),
        ("adafactor", "hybrid"),
        ("adamw_8bit", "zero2"),
        ("adamw_8bit", "zero3"),
        ("paged_adamw", "zero3"),
        ("paged_adamw_8bit", "zero1"),
    ],
)
def test_optimizers_train_the_same_when_spread(
    ranks: Ranks, inputs: Path, optimizer: Any, strategy: str
) -> None:
    """8-bit states are rounded in blocks of a flat tensor, which ZeRO cuts elsewhere."""
    one = ranks(1, train, inputs / f"single-{optimizer}", job("single", "full", optimizer=optimizer))[0][0]
    many = job(strategy, "full", optimizer=optimizer)
    rows = ranks(many.world_size, train, inputs / f"{strategy}-{optimizer}", many)[0][0]
    for key in ("loss", "eval_loss"):
        got, wanted = ([row[key] for row in each if key in row] for each in (rows, one))
        assert got == pytest.approx(wanted, rel=2e-4 if "8bit" in optimizer else 1e-5), key


def check_adapter(tensors: dict[str, Any], reference: dict[str, Any]) -> None:
    """Whole, changed on both ranks' halves, and what ddp learnt."""
    import numpy as np

    assert tensors.keys() == reference.keys()
    for name, tensor in tensors.items():
        assert tensor.shape == reference[name].shape
        if "lora_B" in name:  # zero before training
            assert all(half.any() for half in np.array_split(tensor, 2)), name
        assert np.allclose(tensor, reference[name], rtol=1e-2, atol=1e-5), name


@pytest.mark.parametrize(
    "strategy", ["ddp", "fsdp", "zero2", "zero3", pytest.param("zero1", marks=pytest.mark.matrix)]
)
def test_bf16_with_checkpointing_stays_close(
    ranks: Ranks, inputs: Path, ddp: tuple[str, Any], strategy: str
) -> None:
    method, reference = ddp
    root = inputs / f"bf16-{strategy}-{method}"
    rows = ranks(2, train, root, job(strategy, method, precision="bf16", gradient_checkpointing=True))[0][0]
    for key, tolerance in {"loss": 2e-3, "grad_norm": 3e-2}.items():
        got, wanted = ([row[key] for row in rows if key in row] for rows in (rows, reference[0][0]))
        assert got == pytest.approx(wanted, rel=tolerance), key
        assert got != wanted


def test_deepspeed_needs_no_compiler_and_divides_its_batch() -> None:
    config = strategies.deepspeed_config(job("zero3", "full"), on_gpu=True)
    json.dumps(config)
    assert config["train_batch_size"] == 2 * 2 * 2
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert "optimizer" not in config  # DeepSpeed's own would be compiled at run time
    assert config["zero_optimization"]["offload_param"] == {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize(("strategy", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3)])
def test_the_stage_of_zero(strategy: Any, stage: int) -> None:
    config = strategies.deepspeed_config(params(strategy=strategy), on_gpu=False)
    assert config["zero_optimization"]["stage"] == stage


def test_offloading_the_optimizer_keeps_parameters() -> None:
    config = strategies.deepspeed_config(params(strategy="zero3", offload="optimizer"), on_gpu=True)
    assert "offload_optimizer" in config["zero_optimization"]
    assert "offload_param" not in config["zero_optimization"]


@pytest.mark.parametrize("strategy", ["ddp", *STRATEGIES])
def test_fp16_needs_a_gpu(strategy: str) -> None:
    with pytest.raises(StageUserError, match="fp16 needs a GPU"):
        strategies.training_options(params(strategy=strategy, precision="fp16"), on_gpu=False)


def test_fsdp_offloads_from_gpus_only() -> None:
    """Offloaded weights lie in pinned memory, which a machine without a GPU does not have."""
    job = params(strategy="fsdp", offload="params")
    options = [strategies.training_options(job, on_gpu=on_gpu)["fsdp_config"] for on_gpu in (True, False)]
    assert [one["cpu_offload"] for one in options] == [True, False]


def test_unsharded_fsdp_is_noticed() -> None:
    import torch

    with pytest.raises(Exception, match="left 2 weights whole"):
        strategies.check_sharded(torch.nn.Linear(2, 2), shard_size=2)
