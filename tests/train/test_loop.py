"""The training function in gloo ranks: same losses however work is spread, resume, stopping, artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import is_complete, local_folder, verify
from tests.train import training
from tests.train.conftest import Ranks
from tests.train.training import LORA, params
from train.data.order import FILLER


class Saver:
    """Stands in for the checkpointer: each rank writes into its own folder, then they are put together."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, trainer: Any, step: int) -> None:
        mine = self.root / f"rank-{trainer.task.rank}" / f"checkpoint-{step}"
        trainer.write_checkpoint(mine)
        shutil.copytree(mine, self.folder_of(step), dirs_exist_ok=True)

    def folder_of(self, step: int) -> Path:
        return self.root / f"checkpoint-{step}"


def train(root: Path, task_params: Any, **more: Any) -> tuple[Any, list[dict[str, Any]]]:
    """In a rank: (outcome, metric rows). Model and prepared splits lie beside `root`."""
    from train import loop, metrics

    saver = Saver(root / "checkpoints")
    task = training.task(
        root, root.parent / "model", root.parent / "prepared", task_params, checkpointer=saver, **more
    )
    outcome = loop.train_rank(task)
    return outcome, metrics.merged_from(task.store, task.prefix)


def losses(rows: list[dict[str, Any]], key: str = "loss") -> list[float]:
    return [row[key] for row in rows if key in row]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and packed splits: 21 rows of unequal length and unequally many learnt tokens."""
    root = tmp_path_factory.mktemp("loop")
    training.write_model(root / "model", vocabulary=8192)  # an embedding of 1 MB
    (root / "prepared" / "tokenizer").mkdir(parents=True)
    (root / "prepared" / "tokenizer" / "tokenizer.json").write_text("{}")
    (root / "prepared" / "tokenizer" / "chat_template.jinja").write_text("template")
    training.write_split(root / "prepared", "train", training.pack(training.documents(70), 48)[:21])
    training.write_split(root / "prepared", "eval", training.pack(training.documents(9, seed=1), 48))
    return root


@pytest.fixture(scope="module")
def reference(ranks: Ranks, inputs: Path) -> list[dict[str, Any]]:
    """One worker, the whole global batch of 8 rows at once, two epochs of 3 steps (the last of 5 rows)."""
    job = params(world_size=1, micro_batch_size=8, steps=None, epochs=2, learning_rate=1e-3)
    return ranks(1, train, inputs / "reference", job)[0][1]


@pytest.mark.parametrize(
    ("world_size", "micro", "accumulation"),
    [
        (2, 4, 1),
        (1, 2, 4),
        # A step's 8 rows in 8 forward passes. An epoch's last step has 5: rank 1 ends with nothing to learn.
        (2, 1, 4),
    ],
)
def test_same_losses_however_a_batch_is_spread(
    ranks: Ranks,
    inputs: Path,
    reference: list[dict[str, Any]],
    world_size: int,
    micro: int,
    accumulation: int,
) -> None:
    job = params(
        world_size=world_size,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        steps=None,
        epochs=2,
        learning_rate=1e-3,
    )
    rows = ranks(world_size, train, inputs / f"spread-{world_size}-{micro}", job)[0][1]
    assert len(losses(rows)) == 6 and len(losses(rows, "eval_loss")) == 2
    for key in ("loss", "eval_loss", "grad_norm"):
        assert losses(rows, key) == pytest.approx(losses(reference, key), rel=1e-5), key


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_and_unpacked_losses_are_equal(ranks: Ranks, tmp_path: Path, attention: Any) -> None:
    training.write_model(tmp_path / "model")
    documents = training.documents(12)
    rows = {}
    for name, split in (("packed", training.pack(documents, 48)), ("unpacked", [[d] for d in documents])):
        shutil.rmtree(tmp_path / "prepared", ignore_errors=True)
        training.write_split(tmp_path / "prepared", "train", split)
        # one step holds all: packing puts other documents together, so smaller steps would differ
        job = params(micro_batch_size=6, steps=3, learning_rate=1e-3, attention=attention)
        rows[name] = ranks(2, train, tmp_path / name, job)[0][1]
    for key in ("loss", "grad_norm"):
        assert losses(rows["packed"], key) == pytest.approx(losses(rows["unpacked"], key), rel=1e-5)


def test_two_runs_give_the_same_bits(ranks: Ranks, inputs: Path) -> None:
    job = params(method="lora", lora=LORA, steps=3)
    first, second = (ranks(2, train, inputs / f"bits-{i}", job)[0][1] for i in range(2))
    assert losses(first) == losses(second)
    contents = [
        {
            path.name: path.read_bytes()
            for path in final(inputs / f"bits-{i}").iterdir()
            if path.is_file() and path.suffix != ".jsonl"
        }
        for i in range(2)
    ]
    contents = [{name: data for name, data in files.items() if name != "COMPLETE.json"} for files in contents]
    assert contents[0] == contents[1]


def final(root: Path) -> Path:
    return local_folder(LocalStore(root / "store"), "train/key/final")


def test_adapter_artifact(ranks: Ranks, inputs: Path) -> None:
    from safetensors.numpy import load_file

    job = params(method="lora", lora=LORA, steps=2)
    outcomes = ranks(
        2,
        train,
        inputs / "adapter",
        job,
    )
    assert [(outcome.ending, outcome.step) for outcome, _ in outcomes] == [("done", 2)] * 2
    folder = final(inputs / "adapter")
    assert verify(LocalStore(inputs / "adapter" / "store"), "train/key/final") == []
    assert {path.name for path in folder.iterdir()} == {
        "COMPLETE.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "metrics.jsonl",
        "tensorboard",
        "tokenizer.json",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    assert str(inputs) not in (folder / "adapter_config.json").read_text(), "a path of this host"
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2  # A and B of seven projections in two layers
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2]


def test_full_artifact_loads_as_the_trained_model(ranks: Ranks, inputs: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ranks(2, train, inputs / "full", params(steps=2, strategy="fsdp"))
    folder = final(inputs / "full")
    base_config = json.loads((inputs / "model" / "config.json").read_text())
    assert json.loads((folder / "config.json").read_text()) == base_config
    assert (folder / "chat_template.jinja").read_text() == "template"
    base, trained = (AutoModelForCausalLM.from_pretrained(path) for path in (inputs / "model", folder))
    assert trained.lm_head.weight is trained.model.embed_tokens.weight
    weights = dict(trained.named_parameters())
    for name, before in base.named_parameters():
        assert before.shape == weights[name].shape and not torch.equal(before, weights[name]), name


def test_metric_rows(ranks: Ranks, inputs: Path) -> None:
    job = params(steps=2, peak_flops_per_second=1e12, accelerator="A100-80GB", learning_rate=1e-3)
    rows = ranks(2, train, inputs / "rows", job)[0][1]
    first, second, evaluation = rows
    assert first.keys() == second.keys() == {
        "step", "epoch", "loss", "learning_rate", "grad_norm", "supervised_tokens_per_second",
        "tokens_per_second", "padding_share", "data_wait_s", "peak_memory_bytes", "mfu", "time_s", "attempt",
    }  # fmt: skip
    assert evaluation.keys() == {"step", "epoch", "eval_loss", "time_s", "attempt"}
    assert 0 < second["supervised_tokens_per_second"] < second["tokens_per_second"]
    assert 0 < second["padding_share"] < 0.5
    assert 0 < second["mfu"] < 1
    assert second["learning_rate"] == pytest.approx(1e-3)
    assert second["peak_memory_bytes"] > 50e6
    assert second["epoch"] == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("method", "strategy", "step"),
    # in the middle of an epoch, or at its end, where it was evaluated just before saving
    [
        ("full", "ddp", 6),
        ("full", "fsdp", 6),
        ("full", "zero2", 4),
        ("full", "zero3", 6),
        ("lora", "fsdp", 6),
        ("lora", "zero2", 4),
    ],
)
def test_resume_equals_uninterrupted(
    ranks: Ranks, inputs: Path, method: str, strategy: str, step: int
) -> None:
    job = params(
        strategy=strategy,
        method=method,
        lora=LORA if method == "lora" else None,
        offload="params" if strategy == "zero3" else "none",
        steps=None,
        epochs=1.5,  # 9 steps of 6 an epoch
        save_every=step,
    )
    name = f"resume-{method}-{strategy}-{step}"
    whole = ranks(2, train, inputs / name, job)[0][1]
    checkpoint = inputs / name / "checkpoints" / f"checkpoint-{step}"
    if method == "lora":
        assert (checkpoint / "adapter_model.safetensors").stat().st_size > 10_000
        assert sum(path.stat().st_size for path in checkpoint.rglob("*")) < 900_000, "holds the frozen base?"
    rest = inputs / f"{name}-rest"
    resumed = ranks(2, resume, rest, job, checkpoint)[0]
    assert [row["step"] for row in resumed if "loss" in row] == list(range(step + 1, 10))
    assert losses(resumed) == losses(whole)[step:]
    assert losses(resumed, "eval_loss") == losses(whole, "eval_loss")[1 if step == 6 else 0 :]
    weights = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (final(rest) / weights).read_bytes() == (final(inputs / name) / weights).read_bytes()


def resume(root: Path, task_params: Any, checkpoint: Path) -> list[dict[str, Any]]:
    return train(root, task_params, resume_from=checkpoint, attempt=2)[1]


def test_resume_at_an_epochs_end(ranks: Ranks, inputs: Path) -> None:
    lora = training.LoraParams(rank=4, alpha=8, dropout=0.1)  # so that the random state matters
    job = params(method="lora", lora=lora, steps=None, epochs=2)
    whole = ranks(2, train, inputs / "epoch", job)[0][1]
    checkpoint = inputs / "epoch" / "checkpoints" / "checkpoint-6"
    resumed = ranks(2, resume, inputs / "epoch-rest", job, checkpoint)[0]
    assert losses(resumed) == losses(whole)[6:]


def train_a_part(root: Path, task_params: Any, checkpoint: Path | None) -> tuple[list[dict], list[list[int]]]:
    """In a rank: train from the checkpoint on, or up to the fourth step; (metric rows, the indices of the
    rows in each step)."""
    from train import trainer

    seen: list[list[int]] = []

    class Watched(trainer.RankTrainer):
        def get_batch_samples(self, epoch_iterator: Any, *arguments: Any) -> Any:
            rows = self.train_dataset
            seen.append([])
            read = type(rows).__getitem__
            type(rows).__getitem__ = lambda self, index: (
                seen[-1].append(int(index)) if self is rows else None,
                read(self, index),
            )[1]
            try:
                return super().get_batch_samples(epoch_iterator, *arguments)
            finally:
                type(rows).__getitem__ = read

    trainer.RankTrainer = Watched
    asked = iter([False, False, False, True])
    more = {"resume_from": checkpoint, "attempt": 2} if checkpoint else {"should_stop": lambda: next(asked)}
    return train(root, task_params, **more)[1], seen


@pytest.mark.parametrize(
    ("strategy", "before", "after"),
    [
        ("ddp", 1, 2),
        ("fsdp", 2, 1),
        pytest.param("ddp", 2, 1, marks=pytest.mark.matrix),
        pytest.param("fsdp", 1, 2, marks=pytest.mark.matrix),
    ],
)
def test_another_number_of_workers_goes_on_mid_epoch(
    ranks: Ranks, inputs: Path, reference: list[dict[str, Any]], strategy: str, before: int, after: int
) -> None:
    """Stopped after the first of an epoch's three steps: each row is seen once in it, and the losses are
    those of one worker that never stopped."""
    root = inputs / f"resized-{strategy}-{before}"

    def job(world_size: int) -> Any:
        per_worker = 8 // world_size
        return params(
            strategy=strategy,
            world_size=world_size,
            micro_batch_size=2,
            gradient_accumulation_steps=per_worker // 2,
            steps=None,
            epochs=2,
            learning_rate=1e-3,
        )

    first = ranks(before, train_a_part, root, job(before), None)
    checkpoint = root / "checkpoints" / "checkpoint-4"
    second = ranks(after, train_a_part, inputs / f"{root.name}-rest", job(after), checkpoint)
    rows = [*first[0][0], *second[0][0]]
    assert losses(rows) == pytest.approx(losses(reference), rel=1e-5)
    assert losses(rows, "grad_norm") == pytest.approx(losses(reference, "grad_norm"), rel=1e-4)
    steps = [[seen[step] for _, seen in first] for step in range(4)]
    steps += [[seen[step] for _, seen in second] for step in range(2)]
    for epoch in (steps[:3], steps[3:]):
        read = [index for step in epoch for rank in step for index in rank]
        assert sorted(index for index in read if index != FILLER) == list(range(21))


def stop_on_one_rank(root: Path, task_params: Any) -> Any:
    import os

    asked = iter([False, False, os.environ["RANK"] == "1"])
    return train(root, task_params, should_stop=lambda: next(asked))[0]


def test_one_ranks_request_stops_all_after_saving(ranks: Ranks, inputs: Path) -> None:
    outcomes = ranks(2, stop_on_one_rank, inputs / "stop", params(steps=9))
    assert [(outcome.ending, outcome.step) for outcome in outcomes] == [("drained", 3)] * 2
    assert (inputs / "stop" / "checkpoints" / "checkpoint-3" / "trainer_state.json").is_file()
    assert not is_complete(LocalStore(inputs / "stop" / "store"), "train/key/final")


def diverge(root: Path, task_params: Any) -> str:
    from train.stage import StageError

    with pytest.raises(StageError) as caught:
        train(root, task_params)
    return str(caught.value)


def test_a_loss_that_is_no_number_ends_the_training(ranks: Ranks, inputs: Path) -> None:
    message = ranks(2, diverge, inputs / "nan", params(learning_rate=1e38, max_grad_norm=0.0))[1]
    assert "the loss is nan at step" in message and "lower training.learning_rate" in message


def test_more_ranks_than_planned_are_refused(ranks: Ranks, inputs: Path) -> None:
    with pytest.raises(AssertionError, match="1 ranks were started, the plan says 2"):
        ranks(1, train, inputs / "refused", params(world_size=2))


def test_a_language_model_inside_a_larger_one(ranks: Ranks, inputs: Path, tmp_path: Path) -> None:
    """Its configuration is nested, and has no padding token at the top."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": training.VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))
    model.save_pretrained(tmp_path / "model")
    shutil.copytree(inputs / "prepared", tmp_path / "prepared")
    job = params(method="lora", lora=training.LoraParams(rank=4, target_modules=["q_proj"]), world_size=1)
    rows = ranks(1, train, tmp_path / "run", job)[0][1]
    assert len(losses(rows)) == 4
