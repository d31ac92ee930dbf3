"""The loss over supervised positions equals the one over full logits, and so do its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from artifacts.contract import IGNORED_LABEL
from train import loss
from train.loss import ChunkedCrossEntropy, LogitTransform

SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
FAMILIES = {
    "Llama": {"tie_word_embeddings": False},
    "Qwen3": {"tie_word_embeddings": True},
    "Gemma2": {"final_logit_softcapping": 3.0},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 4.0},
}


def tiny(family: str, **config: Any) -> Any:
    torch.manual_seed(0)
    made = getattr(transformers, f"{family}Config")(**SIZES | FAMILIES.get(family, {}) | config)
    return getattr(transformers, f"{family}ForCausalLM")(made)


def batch(supervised: float = 0.4, rows: int = 3, tokens: int = 17) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 90, (rows, tokens), generator=generator)
    labels = torch.where(torch.rand(rows, tokens, generator=generator) < supervised, ids, IGNORED_LABEL)
    targets = torch.full_like(labels, IGNORED_LABEL)
    targets[:, :-1] = labels[:, 1:]
    return {"input_ids": ids, "position_ids": torch.arange(tokens).repeat(rows, 1), "targets": targets}


def by_full_logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits.float()
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), inputs["targets"].flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_label_smoothing_equals_torchs(
    family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all supervised tokens, in each precision: against float32 logits of the same rounded weights."""
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 90 * 4)
    model, inputs = tiny(family).to(dtype), batch()
    logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
    expected = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        inputs["targets"].flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="sum",
        label_smoothing=0.1,
    )
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    assert loss.install(model)
    options = {"installed": True, "slices_logits": True}
    got = loss.summed_loss(model, inputs, **options, label_smoothing=0.1)
    got.backward()
    assert torch.allclose(got, expected, rtol={torch.float32: 1e-6}.get(dtype, 2e-3))
    assert got > loss.summed_loss(model, inputs, **options) + 1e-3
    for name, gradient in gradients(model).items():
        scale = wanted[name].float().abs().max()
        tolerance = {torch.float32: 1e-5, torch.float16: 1e-2}.get(dtype, 6e-2)
        assert (gradient.float() - wanted[name].float()).abs().max() <= tolerance * scale, name


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_full_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 90 * 4)  # four positions a chunk
    model, inputs = tiny(family), batch()
    expected = by_full_logits(model, inputs)
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    assert loss.install(model)
    got = loss.summed_loss(model, inputs, installed=True, slices_logits=True)
    got.backward()
    assert torch.allclose(got, expected, rtol=1e-6)
    assert gradients(model).keys() == wanted.keys()
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-4, atol=1e-6), name


class Shifted(transformers.LlamaForCausalLM):
    """A family that does something of its own to its logits."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output


@pytest.mark.parametrize("slices_logits", [True, False])
def test_other_families_keep_their_own_logits(slices_logits: bool) -> None:
    model, inputs = Shifted(transformers.LlamaConfig(**SIZES)), batch()
    expected = by_full_logits(model, inputs)
    assert not loss.install(model)
    options = {"installed": False, "slices_logits": slices_logits}
    got = loss.summed_loss(model, inputs, **options)
    assert torch.allclose(got, expected, rtol=1e-6)
    assert loss.summed_loss(model, inputs, **options, label_smoothing=0.1) != got


@pytest.mark.parametrize("family", ["Bloom", "Mpt"])
def test_families_without_position_ids(family: str) -> None:
    """They tell packed documents not apart, so are trained unpacked: positions count up from 0 anyway."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 90, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    if family == "Mpt":
        sizes = {"vocab_size": 90, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**sizes))
    inputs = batch()
    expected = by_full_logits(model, inputs)
    slices = loss.slices_logits(model)
    installed = loss.install(model)
    got = loss.summed_loss(model, inputs, installed=installed, slices_logits=slices)
    assert torch.allclose(got, expected, rtol=1e-6)


def test_the_head_sees_supervised_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny("Llama"), batch()
    rows = []
    chunk_loss = loss._chunk_loss
    monkeypatch.setattr(
        loss, "_chunk_loss", lambda logits, *rest: rows.append(len(logits)) or chunk_loss(logits, *rest)
    )
    assert loss.install(model)
    loss.summed_loss(model, inputs, installed=True, slices_logits=True)
    assert sum(rows) == int((inputs["targets"] != IGNORED_LABEL).sum()) < inputs["targets"].numel() / 2


def test_nothing_to_learn_gives_zero_and_zero_gradients() -> None:
    model, inputs = tiny("Llama"), batch(supervised=0.0)
    loss.install(model)
    got = loss.summed_loss(model, inputs, installed=True, slices_logits=True)
    got.backward()
    assert got.item() == 0
    assert gradients(model).keys() == {name for name, _ in model.named_parameters()}
    assert all(not gradient.any() for gradient in gradients(model).values())


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(5, 8, requires_grad=True)
    head = nn.Linear(8, 11)
    head.requires_grad_(False)
    given = (hidden, head.weight, head.bias, torch.arange(5), LogitTransform(), 0.0, True)
    got = ChunkedCrossEntropy.apply(*given)
    got.backward()
    assert hidden.grad is not None and head.weight.grad is None and head.bias.grad is None


def test_autocast_computes_in_bfloat16_and_sums_in_float32() -> None:
    model, inputs = tiny("Qwen3"), batch()
    expected = by_full_logits(model, inputs)
    loss.install(model)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss.summed_loss(model, inputs, installed=True, slices_logits=True)
    got.backward()
    assert got.dtype == torch.float32
    assert torch.allclose(got, expected, rtol=5e-3)
    assert model.lm_head.weight.grad.dtype == torch.float32


def packed(lengths: list[int], seed: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 90, (1, sum(lengths)), generator=generator)
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    ends = torch.tensor(lengths).cumsum(0) - 1
    targets = ids.roll(-1, 1)
    targets[0, ends] = IGNORED_LABEL
    return ids, position_ids, targets


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma2"])
def test_packed_equals_unpacked(family: str) -> None:
    lengths = [7, 12, 5]
    model = tiny(family)
    loss.install(model)
    ids, position_ids, targets = packed(lengths)
    together = loss.summed_loss(
        model,
        {"input_ids": ids, "position_ids": position_ids, "targets": targets},
        installed=True,
        slices_logits=True,
    )
    together.backward()
    wanted = gradients(model)
    model.zero_grad()
    alone = 0.0
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        inputs = {
            "input_ids": ids[:, part],
            "position_ids": position_ids[:, part],
            "targets": targets[:, part],
        }
        piece = loss.summed_loss(model, inputs, installed=True, slices_logits=True)
        piece.backward()
        alone += piece.item()
        start += length
    assert together.item() == pytest.approx(alone, rel=1e-6)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-4, atol=1e-5), name


def test_a_neighbour_changes_nothing() -> None:
    model = tiny("Qwen3").eval()
    ids, position_ids, _ = packed([7, 12, 5])
    changed = ids.clone()
    changed[:, :7] = 90 - changed[:, :7]
    with torch.no_grad():
        before, after = (
            model(input_ids=given, position_ids=position_ids, use_cache=False).logits
            for given in (ids, changed)
        )
    assert not torch.equal(before[:, :7], after[:, :7])
    assert torch.equal(before[:, 7:], after[:, 7:])
