"""How far a merged model is from its base with the adapter beside it: their logits on a few short texts.

Both are computed in float32 from the weights as they are stored, so that the figure is what merging did to
the weights and nothing else: it does not drown in the noise of 16-bit arithmetic. Weights in float32 are
merged to about 1e-6; in bfloat16 each merged weight is rounded to 8 bits, which comes to 0.002 to 0.01, in
float16 to an eighth of that. A wrong scale, a matrix that is left out or applied twice, another base: all far
above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.merging.adapter import read_config, trained_tokens
from train.merging.layout import embedding_rows
from train.merging.probes import token_sequences
from train.merging.streamed import NotStreamableError, open_model
from train.merging.tensors import model_tensors
from train.processes import available_cores
from train.stage import StageError


@dataclass(frozen=True)
class Drift:
    """`share`: root mean square of the logits' differences, over the standard deviation of the logits before
    the merge. `same_top`: share of the positions at which both find the same token most likely."""

    share: float
    same_top: float


def measure(base: Path, adapter: Path, merged: Path, *, trust_remote_code: bool = False) -> Drift:
    """Of the model in `merged` from `base` with `adapter`. One model is there at a time, of it one module,
    where its files allow that."""
    torch.set_num_threads(available_cores())
    known, now = embedding_rows(model_tensors(base)), embedding_rows(model_tensors(merged))
    trained = {*trained_tokens(read_config(adapter)), *range(known, now)}
    sequences = token_sequences(merged, now, trained, trust_remote_code=trust_remote_code)
    before = logits(base, sequences, adapter, trust_remote_code=trust_remote_code)
    after = logits(merged, sequences, trust_remote_code=trust_remote_code)
    return compare(before, after)


def check(drift: Drift, max_share: float) -> None:
    """Raises StageError where the merged model is further from base and adapter than that."""
    if drift.share <= max_share:  # not so for NaN
        return
    raise StageError(
        "the merged model is not what was trained: its logits differ from those of base and adapter by "
        f"{drift.share:.3g} of their standard deviation, max_drift is {max_share:g} (the most likely token "
        f"is the same at {drift.same_top:.0%} of positions)",
        "below 0.1 the rounding of 16-bit weights is the likely cause: raise merge.max_drift, or merge into "
        "a float32 base; above it the adapter does what can't be written into the weights: leave merge out "
        "of `after` and use it beside its base",
    )


def compare(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Drift:
    """Of logits (tokens, vocabulary) of several sequences; the second may know fewer tokens or more."""
    squares = values = sums = squared = same = positions = 0.0
    for first, second in zip(before, after, strict=True):
        width = min(first.shape[1], second.shape[1])
        first, second = first[:, :width].double(), second[:, :width].double()
        squares += float((first - second).square().sum())
        sums += float(first.sum())
        squared += float(first.square().sum())
        values += first.numel()
        same += int((first.argmax(-1) == second.argmax(-1)).sum())
        positions += len(first)
    variance = squared / values - (sums / values) ** 2
    share = math.sqrt(squares / values / variance) if variance > 0 else math.inf if squares else 0.0
    return Drift(share, same / positions)


@torch.no_grad()
def logits(
    folder: Path,
    sequences: Sequence[Sequence[int]],
    adapter: Path | None = None,
    *,
    trust_remote_code: bool = False,
) -> list[torch.Tensor]:
    """Of each sequence the logits (tokens, vocabulary), in float32."""
    try:
        return _forward(open_model(folder, adapter, trust_remote_code=trust_remote_code), sequences)
    except (NotStreamableError, NotImplementedError, RuntimeError):  # a module that reaches into another
        return _forward(_load(folder, adapter, trust_remote_code), sequences)


def _load(folder: Path, adapter: Path | None, trust_remote_code: bool) -> Any:
    """The whole model."""
    from transformers import AutoModelForCausalLM

    from train.methods import load_adapter

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=trust_remote_code
    )
    return (model if adapter is None else load_adapter(model, adapter)).eval()


def _forward(model: Any, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """All at once, padded on the right: what follows a token has no effect on it."""
    length = max(map(len, sequences))
    padded = torch.tensor([[*tokens, *([0] * (length - len(tokens)))] for tokens in sequences])
    found = model(input_ids=padded, use_cache=False).logits
    return [rows[: len(tokens)] for rows, tokens in zip(found, sequences, strict=True)]
