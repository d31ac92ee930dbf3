"""Which weights are treated how."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.train.training import params
from train import optimizers
from train.methods import apply
from train.optimizers import NAMES


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.frozen = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.frozen.requires_grad_(False)


def test_norms_and_biases_do_not_decay_and_frozen_weights_are_left_out() -> None:
    model = Block()
    job = params(weight_decay=0.1)
    decayed, others = optimizers.groups(model, job, ["linear.weight", "frozen.weight"])
    assert decayed == {"params": [model.linear.weight], "weight_decay": 0.1}
    assert {id(one) for one in others["params"]} == {
        id(one) for one in (model.linear.bias, model.norm.weight, model.norm.bias)
    }
    assert others["weight_decay"] == 0.0


def test_lora_plus_has_its_own_groups() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from artifacts.contract import LoraParams

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 4}
    config = Qwen3Config(vocab_size=8, num_attention_heads=2, num_key_value_heads=2, **sizes)
    job = params(method="lora", lora=LoraParams(rank=2, plus_ratio=16.0), learning_rate=1e-3)
    model = apply(Qwen3ForCausalLM(config), job)
    groups = optimizers.groups(model, job, [])
    assert sorted(group["lr"] for group in groups) == pytest.approx([1e-3, 16e-3])
    assert sum(len(group["params"]) for group in groups) == 14


@pytest.mark.parametrize("optimizer", NAMES)
def test_transformers_knows_each_by_its_name(optimizer: str) -> None:
    from transformers.training_args import OptimizerNames

    assert NAMES[optimizer] in set(OptimizerNames)


@pytest.mark.matrix
def test_embeddings_keep_their_state_in_32_bits() -> None:
    from bitsandbytes.optim import AdamW

    model = nn.ModuleDict({"embedding": nn.Embedding(128, 64), "linear": nn.Linear(128, 64, bias=False)})
    optimizer = AdamW(model.parameters(), lr=1e-3, optim_bits=8)
    optimizers.keep_embeddings_exact(optimizer, model)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = {name: optimizer.state[weight]["state1"].dtype for name, weight in model.named_parameters()}
    assert kept == {"embedding.weight": torch.float32, "linear.weight": torch.uint8}
