"""Adapters on bases in 4 and 8 bits: they train, and what is saved goes with the base."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.contract import TrainParams
from tests.train import gptq, method_cases
from tests.train.merging import merged
from tests.train.method_cases import load, logits, lora, other
from train import lean_peft, methods, weights
from train.stage import StageUserError

#: Family, quantization, job, and how far quantization moves the logits of these models, at most.
CASES = {
    "QLoRA": ("qwen3", "nf4", lora(), 0.15),
    "QLoRA with DoRA": ("llama", "nf4", lora(dora=True), 0.15),
    "QLoRA with LoftQ": ("llama", "nf4", lora(init="loftq"), 0.15),
    "IA3 in 4 bits": ("mistral", "nf4", other("ia3"), 0.15),
    "Bloom in 8 bits": ("bloom", "int8", lora(), 0.01),
    "IA3 in 8 bits": ("llama", "int8", other("ia3"), 0.01),
}


def quantized(job: TrainParams, quantization: Any) -> TrainParams:
    return dataclasses.replace(job, quantization=quantization)


def load_for(job: TrainParams, folder: Path) -> Any:
    """As `train.loop.load_model` does."""
    from transformers import AutoModelForCausalLM

    lean_peft.prepare(job.quantization)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=methods.quantization_config(job, folder)
    )


def learn(model: Any, steps: int = 3) -> list[float]:
    """The loss of a text at each step, with an evaluation before the first."""
    tokens = torch.arange(3, 15)[None]
    logits(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    losses = []
    for _ in range(steps):
        model.train()
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in trained), "a gradient is missing"
        optimizer.step()
        losses.append(loss.item())
    return losses


IN_TEST = ("QLoRA", "Bloom in 8 bits")


@pytest.mark.parametrize(
    "name", [name if name in IN_TEST else pytest.param(name, marks=pytest.mark.matrix) for name in CASES]
)
def test_an_adapter_of_a_quantized_base_learns_and_is_merged_with_the_plain_one(
    tmp_path: Path, name: str
) -> None:
    family, quantization, job, moved = CASES[name]
    base = method_cases.write_family(tmp_path / "base", family)
    job = quantized(job, quantization)
    model = methods.apply(load_for(job, base), job)
    assert (logits(model) - logits(load(base))).abs().max() < moved
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    losses = learn(model)
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    method_cases.disturb(model)
    weights.write_adapter(model, tmp_path / "final", base_name="b", writes=True, for_base=True)
    beside = logits(methods.load_adapter(load(base), tmp_path / "final"))
    assert (beside - logits(load(base))).abs().max() > 0.02
    assert (beside - logits(model)).abs().max() < 4 * moved
    whole = logits(load(merged(tmp_path, base, tmp_path / "final")))
    torch.testing.assert_close(whole, beside, rtol=1e-4, atol=2e-5)


@pytest.mark.matrix
def test_loftq_starts_nearer_to_the_plain_base(tmp_path: Path) -> None:
    base = method_cases.write_family(tmp_path / "base", "llama")
    found = {
        init: logits(methods.apply(load_for(job, base), job))
        for init in ("default", "loftq")
        for job in [quantized(lora(init=init), "nf4")]
    }
    plain = logits(load(base))
    assert (found["loftq"] - plain).norm() < 0.9 * (found["default"] - plain).norm()


def test_magnitudes_and_another_start_are_refused() -> None:
    with pytest.raises(StageUserError, match="can't be told apart"):
        methods.apply(method_cases.FAMILIES["llama"](), lora(dora=True, init="pissa"))


@pytest.mark.matrix
def test_lora_on_a_gptq_base(tmp_path: Path) -> None:
    """Its layers are found by the names of the unquantized architecture, by a kernel with gradients."""
    base = method_cases.write_family(tmp_path / "base", "llama")
    folder = gptq.write_gptq(base, tmp_path / "gptq")
    job = quantized(lora(), "gptq")
    model = load_for(job, folder)
    assert (logits(model) - logits(load(base))).abs().max() < 0.15
    adapted = methods.apply(model, job)
    assert len(methods.trainable_names(adapted)) == 2 * 7 * 2
    losses = learn(adapted)
    assert losses[-1] < losses[0]
    weights.write_adapter(adapted, tmp_path / "final", base_name="b", writes=True, for_base=True)
    again = methods.load_adapter(load_for(job, folder), tmp_path / "final")
    torch.testing.assert_close(logits(again), logits(adapted), rtol=1e-4, atol=2e-5)
    with pytest.raises(StageUserError, match="quantized base model"):
        merged(tmp_path, folder, tmp_path / "final")
