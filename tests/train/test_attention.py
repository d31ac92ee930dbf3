"""Which attention kernel a training runs on, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.utils

from tests.train import training
from tests.train.training import params
from train import attention
from train.stage import StageUserError


def machine(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: set[int]) -> None:
    """A GPU of that compute capability, with those versions of flash attention."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    for version in (2, 3):
        name = f"is_flash_attn_{version}_available"
        monkeypatch.setattr(transformers.utils, name, lambda version=version: version in installed)


@pytest.mark.parametrize(
    ("precision", "capability", "installed", "expected"),
    [
        ("bf16", (9, 0), {2, 3}, "flash_attention_3"),
        ("bf16", (9, 0), {2}, "flash_attention_2"),
        ("bf16", (10, 0), {2, 3}, "flash_attention_2"),  # 3 is for Hopper alone
        ("fp16", (8, 0), {2, 3}, "flash_attention_2"),
        ("fp32", (9, 0), {2, 3}, None),
        ("fp16", (7, 5), {2, 3}, None),
        ("bf16", (9, 0), set(), None),
    ],
)
def test_the_best_that_can_run(
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    capability: Any,
    installed: set[int],
    expected: str | None,
) -> None:
    machine(monkeypatch, capability, installed)
    assert attention.choose(params(precision=precision), on_gpu=True) == expected
    assert attention.choose(params(precision=precision), on_gpu=False) is None


@pytest.mark.parametrize(
    ("wanted", "precision", "capability", "installed", "why"),
    [
        ("flash_attention_2", "bf16", (8, 0), {3}, "it is not installed"),
        ("flash_attention_2", "fp32", (8, 0), {2}, "it knows no float32"),
        ("flash_attention_2", "bf16", (7, 5), {2}, "needs compute capability 8.0, the GPU has 7.5"),
        ("flash_attention_3", "bf16", (8, 0), {2, 3}, "needs compute capability 9.0, the GPU has 8.0"),
    ],
)
def test_a_wanted_one_that_can_not_run(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, precision: Any, capability: Any, installed: Any, why: str
) -> None:
    machine(monkeypatch, capability, installed)
    with pytest.raises(StageUserError, match=why):
        attention.choose(params(attention=wanted, precision=precision), on_gpu=True)


def test_what_the_job_names_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (9, 0), {2, 3})
    for wanted in ("flash_attention_3", "flash_attention_2", "sdpa", "eager"):
        assert attention.choose(params(attention=wanted, precision="bf16"), on_gpu=True) == wanted
    assert attention.choose(params(attention="eager"), on_gpu=False) == "eager"
    with pytest.raises(StageUserError, match="it needs a GPU"):
        attention.choose(params(attention="flash_attention_2"), on_gpu=False)


def bloom(folder: Path) -> Path:
    """Has neither sdpa nor flash attention."""
    from transformers import BloomConfig, BloomForCausalLM

    BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=4)).save_pretrained(folder)
    return folder


def test_a_model_without_the_kernel(tmp_path: Path) -> None:
    from train.loop import load_model

    folder = bloom(tmp_path)
    task = training.task(tmp_path, folder, tmp_path, params())
    for kernel in ("flash_attention_2", "sdpa", None):
        assert attention.used_by(load_model(task, kernel)) == "eager"
    named = training.task(tmp_path, folder, tmp_path, params(attention="sdpa"))
    with pytest.raises(StageUserError, match="the model can't use sdpa"):
        load_model(named, "sdpa")


def test_rows_are_flattened_where_position_ids_keep_them_apart(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM

    isolated = AutoModelForCausalLM.from_pretrained(training.write_model(tmp_path))
    leaking = FalconForCausalLM(
        FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    )
    assert not attention.may_flatten(isolated, trust_remote_code=False), "sdpa takes padded rows"
    for kernel in attention.FLASH:
        for model in (isolated, leaking):
            model.config._attn_implementation_internal = kernel
        assert attention.may_flatten(isolated, trust_remote_code=False)
        assert not attention.may_flatten(isolated, trust_remote_code=True)
        assert not attention.may_flatten(leaking, trust_remote_code=False)
