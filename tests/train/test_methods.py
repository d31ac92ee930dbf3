"""What a method trains, and that it leaves the rest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import LoraParams
from tests.train import training
from tests.train.conftest import Ranks
from tests.train.training import LORA, params
from train import methods
from train.stage import StageUserError


def model(tmp_path: Path, *, tied: bool = True) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(training.write_model(tmp_path / "model", tied=tied))


def lora(**changes: Any) -> Any:
    return params(method="lora", lora=LoraParams(rank=4, alpha=8, **changes))


def test_full_trains_every_weight(tmp_path: Path) -> None:
    made = model(tmp_path)
    made.requires_grad_(False)
    assert methods.apply(made, params()) is made
    assert methods.trainable_names(made) == {name for name, _ in made.named_parameters()}


def test_lora_trains_exactly_the_declared_modules(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path), lora(target_modules=["q_proj", "v_proj"]))
    assert methods.trainable_names(adapted) == {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.default.weight"
        for layer in range(2)
        for module in ("q_proj", "v_proj")
        for side in "AB"
    }


def test_all_linear_means_every_linear_layer_but_the_head(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path), lora())
    assert len(methods.trainable_names(adapted)) == 2 * 7 * 2
    assert not any("lm_head" in name for name in methods.trainable_names(adapted))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_weights_are_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(StageUserError, match="shares its weight"):
        methods.apply(model(tmp_path), lora(target_modules=["q_proj", target]))


def test_an_untied_head_may_be_adapted(tmp_path: Path) -> None:
    adapted = methods.apply(model(tmp_path, tied=False), lora(target_modules=["lm_head"]))
    assert len(methods.trainable_names(adapted)) == 2


def test_unknown_modules_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(StageUserError, match="LoRA does not fit Qwen3ForCausalLM"):
        methods.apply(model(tmp_path), lora(target_modules=["query_key_value"]))


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [("full", "bf16", "float32"), ("lora", "bf16", "bfloat16"), ("lora", "fp32", "float32")],
)
def test_only_frozen_weights_are_held_in_half_precision(method: Any, precision: Any, expected: str) -> None:
    held = methods.weights_dtype(params(method=method, lora=LORA, precision=precision))
    assert str(held) == f"torch.{expected}"


def frozen_and_trained(root: Path, task_params: Any) -> tuple[dict[str, bytes], dict[str, bytes], set[str]]:
    """In a rank: the frozen weights' bits before and after training, and the names of changed adapters."""
    import torch

    from train import loop, trainer

    kept: list[Any] = []

    class Watched(trainer.RankTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            kept.append((self.model, bits(self.model), adapters(self.model)))

    def bits(adapted: Any) -> dict[str, bytes]:
        return {
            name: tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            for name, tensor in adapted.state_dict().items()
            if ".lora_" not in name
        }

    def adapters(adapted: Any) -> dict[str, Any]:
        return {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}

    trainer.RankTrainer = Watched
    loop.train_rank(training.task(root, root / "model", root / "prepared", task_params))
    adapted, before, start = kept[0]
    changed = {name for name, value in adapters(adapted).items() if not torch.equal(value, start[name])}
    assert changed == start.keys(), "an adapter did not learn"
    return before, bits(adapted), changed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_stay_bit_identical(ranks: Ranks, tmp_path: Path, precision: str) -> None:
    training.write_model(tmp_path / "model")
    training.write_split(tmp_path / "prepared", "train", training.pack(training.documents(20), 48))
    job = params(method="lora", lora=LORA, precision=precision, weight_decay=0.1)
    for before, after, changed in ranks(2, frozen_and_trained, tmp_path, job):
        assert len(before) > 20 and len(changed) == 28
        assert before == after
