"""Packed documents train as documents of their own do: logits, loss and gradients, for each attention that
runs without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from artifacts.contract import IGNORED_LABEL
from tests.train.test_isolation import tiny_model
from train import loss
from train.data.collate import Collator
from train.data.isolation import KNOWN_ISOLATED

ATTENTIONS = ("eager", "sdpa")
LENGTHS = (9, 14, 6)
ABSOLUTE = 1e-5  # fp32


def documents(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Rows of one document each, a part of it learnt."""
    random = np.random.default_rng(seed)
    rows = []
    for length in LENGTHS:
        ids = random.integers(1, 200, length).astype(np.int32)
        labels = np.where(np.arange(length) < length // 3, np.int32(IGNORED_LABEL), ids)
        rows.append({"input_ids": ids, "labels": labels, "document_lengths": np.array([length], np.int32)})
    return rows


def packed(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def logits(model: nn.Module, row: dict[str, np.ndarray]) -> torch.Tensor:
    batch = Collator()([row])
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
    return output.logits[0]


def learnt(
    model: Any, rows: list[dict[str, np.ndarray]], installed: bool
) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss over the rows, one batch each, and its gradients."""
    model.zero_grad()
    total = 0.0
    for row in rows:
        batch = Collator()([row])
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "targets")}
        summed = loss.summed_loss(model, inputs, installed=installed, slices_logits=True)
        summed.backward()
        total += summed.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("architecture", sorted(KNOWN_ISOLATED))
def test_packed_equals_unpacked(architecture: str, attention: str) -> None:
    model = tiny_model(architecture)
    model.set_attn_implementation(attention)
    rows = documents()
    together = logits(model.eval(), packed(rows))
    alone = torch.cat([logits(model, row) for row in rows])
    assert (together - alone).abs().max() <= ABSOLUTE

    installed = loss.install(model)
    one, gradients = learnt(model, [packed(rows)], installed)
    many, expected = learnt(model, rows, installed)
    assert one == pytest.approx(many, rel=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=ABSOLUTE), name


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("architecture", sorted(KNOWN_ISOLATED))
def test_neighbours_stay_as_they_are(architecture: str, attention: str) -> None:
    model = tiny_model(architecture).eval()
    model.set_attn_implementation(attention)
    rows, others = documents(), documents(seed=1)
    before = logits(model, packed(rows))
    after = logits(model, packed([rows[0], others[1], rows[2]]))
    first, second = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    assert not torch.allclose(before[first:second], after[first:second])
    assert torch.allclose(before[:first], after[:first], rtol=0, atol=ABSOLUTE)
    assert torch.allclose(before[second:], after[second:], rtol=0, atol=ABSOLUTE)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_what_leaks_is_seen_here_too(attention: str) -> None:
    """Without position ids that restart the same comparison fails."""
    model = tiny_model("LlamaForCausalLM").eval()
    model.set_attn_implementation(attention)
    rows = documents()
    row = packed(rows) | {"document_lengths": np.array([sum(LENGTHS)], np.int32)}
    alone = torch.cat([logits(model, row) for row in rows])
    assert (logits(model, row) - alone).abs().max() > 100 * ABSOLUTE
