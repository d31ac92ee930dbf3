"""Metric rows, merged over attempts."""

from __future__ import annotations

import pytest

from tests.train.training import write_model
from train.metrics import FlopCount, Meter, Tokens, count_weights, merged, step_row


def row(**changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "step": 3,
        "epoch": 0.5,
        "loss": 1.5,
        "learning_rate": 1e-4,
        "grad_norm": 0.7,
        "tokens": Tokens(supervised=100, real=300, total=400),
        "elapsed_s": 2.0,
        "data_wait_s": 0.1,
        "memory_bytes": 7,
        "attempt": 1,
        "flops": FlopCount(10, 10, 5, 0),
        "peak_flops_per_second": None,
    }
    return step_row(**facts | changes)  # type: ignore[arg-type]


def test_rates_and_shares() -> None:
    made = row()
    assert made["supervised_tokens_per_second"] == 50
    assert made["tokens_per_second"] == 150
    assert made["padding_share"] == 0.25
    assert made["mfu"] is None


def test_mfu_counts_the_head_for_supervised_tokens_alone() -> None:
    flops = (4 * 10 + 2 * 10) * 300 + (4 * 5) * 100
    assert row(peak_flops_per_second=1e5)["mfu"] == pytest.approx(flops / 2.0 / 1e5)


def test_a_grad_norm_that_is_no_number_is_left_out() -> None:
    assert row(grad_norm=float("inf"))["grad_norm"] is None


def test_weights_that_multiply_activations(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM

    tied = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "tied"))
    untied = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "untied", tied=False))
    head = 96 * 32
    assert count_weights(tied) == count_weights(untied)  # the embedding look-up counts in neither
    assert count_weights(tied).head_weights == head
    everything = sum(parameter.numel() for parameter in tied.parameters())
    assert count_weights(tied).body_weights == everything - head
    untied.requires_grad_(False)
    assert (count_weights(untied).body_trained, count_weights(untied).head_trained) == (0, 0)


def test_the_last_attempt_counts_and_training_comes_before_evaluation() -> None:
    rows = [
        {"step": 2, "eval_loss": 9.0, "attempt": 1},
        {"step": 1, "loss": 1.0, "attempt": 1},
        {"step": 2, "loss": 2.1, "attempt": 2},
        {"step": 2, "loss": 2.0, "attempt": 1},
        {"step": 3, "loss": 3.0, "attempt": 2},
    ]
    assert [(r["step"], r.get("loss"), r.get("eval_loss")) for r in merged(rows)] == [
        (1, 1.0, None),
        (2, 2.1, None),
        (2, None, 9.0),
        (3, 3.0, None),
    ]


def test_pauses_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 11.0, 12.0])  # started, paused, went on, read
    monkeypatch.setattr("train.metrics.time.perf_counter", lambda: next(times))
    meter = Meter()
    meter.tokens.add(1, 2, 3)
    meter.pause()
    meter.go_on()
    tokens, elapsed_s, _ = meter.take()
    assert (tokens.supervised, tokens.real, tokens.total, elapsed_s) == (1, 2, 3, 2.0)
    assert meter.tokens == Tokens()
