"""The numbers of a training: one row a logged step in `train/<key>/metrics/`, and the progress event."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from artifacts.segments import SegmentWriter, read_all
from artifacts.store import Store


@dataclass
class Tokens:
    """Counts over all ranks since the last row."""

    supervised: int = 0
    real: int = 0
    total: int = 0  # with padding

    def add(self, supervised: int, real: int, total: int) -> None:
        self.supervised += supervised
        self.real += real
        self.total += total


class Meter:
    """Collects between two rows. `pause`/`go_on` keep evaluation and saving out of the throughput."""

    def __init__(self) -> None:
        self.tokens, self.data_wait_s = Tokens(), 0.0
        self._started = time.perf_counter()
        self._paused_at: float | None = None

    def pause(self) -> None:
        self._paused_at = time.perf_counter()

    def go_on(self) -> None:
        if self._paused_at is not None:
            self._started += time.perf_counter() - self._paused_at
            self._paused_at = None

    def take(self) -> tuple[Tokens, float, float]:
        """(tokens, elapsed seconds, seconds this rank waited for data) since the last call."""
        now = time.perf_counter()
        taken = self.tokens, now - self._started, self.data_wait_s
        self.tokens, self.data_wait_s, self._started = Tokens(), 0.0, now
        return taken


def peak_memory_bytes() -> int:
    """Of this rank: allocated on its GPU, or resident in host memory where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations that training needs per token, by the usual count (Kaplan et al. 2020, §2.1):
    2 per weight in the forward pass, 2 for the gradients of activations, 2 for those of trained weights. Left
    out, so MFU is rather too low: attention scores, and what checkpointing computes again. The output head
    counts for supervised tokens alone, as only they pass it."""

    body_weights: int
    body_trained: int
    head_weights: int
    head_trained: int

    def of(self, tokens: Tokens) -> int:
        body = (4 * self.body_weights + 2 * self.body_trained) * tokens.real
        head = (4 * self.head_weights + 2 * self.head_trained) * tokens.supervised
        return body + head


def count_weights(model: Any) -> FlopCount:
    """Weights that multiply activations: all matrices but the input embedding, which is a look-up. Call
    before weights are sharded."""
    head = model.get_output_embeddings()
    head_parameters = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    lookup = {id(parameter) for parameter in model.get_input_embeddings().parameters()} - head_parameters
    counts = [0, 0, 0, 0]
    for parameter in model.parameters():
        if id(parameter) in lookup:
            continue
        size = getattr(parameter, "ds_numel", parameter.numel())
        first = 2 if id(parameter) in head_parameters else 0
        counts[first] += size
        counts[first + 1] += size if parameter.requires_grad else 0
    return FlopCount(*counts)


def step_row(
    *,
    step: int,
    epoch: float,
    loss: float,
    learning_rate: float,
    grad_norm: float | None,
    tokens: Tokens,
    elapsed_s: float,
    data_wait_s: float,
    memory_bytes: int,
    attempt: int,
    flops: FlopCount | None,
    peak_flops_per_second: float | None,
) -> dict[str, Any]:
    """One row; `peak_flops_per_second` is that of all ranks' accelerators together."""
    elapsed_s = max(elapsed_s, 1e-9)
    mfu = None
    if flops is not None and peak_flops_per_second:
        mfu = flops.of(tokens) / elapsed_s / peak_flops_per_second
    return {
        "step": step,
        "epoch": round(epoch, 6),
        "loss": loss,
        "learning_rate": learning_rate,
        "grad_norm": grad_norm if grad_norm is not None and math.isfinite(grad_norm) else None,
        "supervised_tokens_per_second": round(tokens.supervised / elapsed_s, 1),
        "tokens_per_second": round(tokens.real / elapsed_s, 1),
        "padding_share": round(1 - tokens.real / max(tokens.total, 1), 6),
        "data_wait_s": round(data_wait_s, 6),
        "peak_memory_bytes": memory_bytes,
        "mfu": None if mfu is None else round(mfu, 6),
        "time_s": round(time.time(), 3),
        "attempt": attempt,
    }


def evaluation_row(*, step: int, epoch: float, eval_loss: float, attempt: int) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": round(epoch, 6),
        "eval_loss": eval_loss,
        "time_s": round(time.time(), 3),
        "attempt": attempt,
    }


def writer(store: Store, prefix: str, attempt: int) -> SegmentWriter:
    return SegmentWriter(store, f"{prefix}/metrics", f"attempt-{attempt:03d}")


def merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all attempts in step order, a step's training row before its evaluation row. Where several
    attempts reached a step, the last one counts."""
    best: dict[tuple[int, bool], dict[str, Any]] = {}
    for row in rows:
        key = row["step"], "eval_loss" in row
        if key not in best or row["attempt"] >= best[key]["attempt"]:
            best[key] = row
    return [best[key] for key in sorted(best)]


def merged_from(store: Store, prefix: str) -> list[dict[str, Any]]:
    return merged(read_all(store, f"{prefix}/metrics"))
