"""How well a model predicts documents, before and after it was quantized."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.quantizing.documents import Document

_ROWS = 256  # positions whose logits are widened to float32 at a time
_MAX_LOSS = 700.0  # e to this is near the largest number


@dataclass(frozen=True)
class Fit:
    """Sums over documents of minus the log-probability (natural) of their tokens, and how many these are: of
    the tokens that training learns, and of all but each document's first."""

    learnt_loss: float
    learnt_tokens: int
    all_loss: float
    all_tokens: int

    @property
    def loss(self) -> float:
        """Mean over the learnt tokens; over all, where none is learnt."""
        if self.learnt_tokens:
            return self.learnt_loss / self.learnt_tokens
        return self.all_loss / self.all_tokens

    @property
    def perplexity(self) -> float | None:
        return rounded_perplexity(self.loss)

    @property
    def perplexity_of_all(self) -> float | None:
        return rounded_perplexity(self.all_loss / self.all_tokens)


def rounded_perplexity(loss: float) -> float | None:
    """To 6 digits; None where it is beyond number."""
    return float(f"{math.exp(loss):.6g}") if loss < _MAX_LOSS else None


def increase(before: Fit, after: Fit) -> float:
    """By what share the perplexity rose; infinite or NaN where the model after is broken."""
    rise = after.loss - before.loss
    return math.exp(rise) - 1 if not rise > _MAX_LOSS else math.inf


def measure(
    model: Any, documents: Sequence[Document], told: Callable[[int], None], device: str = "cpu"
) -> Fit:
    """`told` hears how many documents are done. Each goes through the model alone: no padding. `device` is
    that of the model's input."""
    import torch
    from torch.nn.functional import cross_entropy

    sums = torch.zeros(2, dtype=torch.float64)
    counts = torch.zeros(2, dtype=torch.int64)
    for number, document in enumerate(documents, start=1):
        ids = torch.tensor(document.input_ids, dtype=torch.long, device=device)
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            losses = [
                cross_entropy(rows.float(), targets, reduction="none")
                for rows, targets in zip(logits.split(_ROWS), ids[1:].split(_ROWS), strict=True)
            ]
        each = torch.cat(losses).double().cpu()
        learnt = torch.from_numpy(document.learnt[1:].copy())
        sums += torch.stack([each[learnt].sum(), each.sum()])
        counts += torch.tensor([int(learnt.sum()), len(each)])
        told(number)
    return Fit(float(sums[0]), int(counts[0]), float(sums[1]), int(counts[1]))


def measure_folder(
    folder: Path,
    documents: Sequence[Document],
    told: Callable[[int], None],
    *,
    trust_remote_code: bool,
    **options: Any,
) -> Fit:
    """Of the model in a folder, as plain transformers loads it: on the GPUs, as many as it takes, else on
    the CPU."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map="auto" if on_gpu else {"": "cpu"},
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        **options,
    )
    return measure(model.eval(), documents, told, "cuda:0" if on_gpu else "cpu")
