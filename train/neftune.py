"""NEFTune: noise on the embeddings of training tokens (https://arxiv.org/abs/2310.05914).

Uniform in ±alpha / √(tokens · width). The paper's sequences are single documents, so here each token's noise
goes by the length of its own document, not of the packed row that it lies in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Noise:
    """Adds the noise to `embedding`'s output while its model is in training mode. `seeing(position_ids)`
    tells it, before each forward pass, where the documents lie."""

    def __init__(self, embedding: nn.Module, alpha: float) -> None:
        self.alpha = alpha
        self._lengths: torch.Tensor | None = None
        embedding.register_forward_hook(self._add)

    def seeing(self, position_ids: torch.Tensor) -> None:
        self._lengths = document_lengths(position_ids)

    def _add(self, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training or self._lengths is None or self._lengths.shape != output.shape[:2]:
            return output
        limit = self.alpha / (self._lengths * output.shape[-1]).sqrt().unsqueeze(-1)
        return output + torch.empty_like(output).uniform_(-1, 1) * limit.to(output.dtype)


def document_lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """Of each position (B, T) the length of its document: positions start again at 0 with each one."""
    starts = position_ids.new_zeros(position_ids.shape)
    starts[position_ids == 0] = 1
    starts[:, 0] = 1
    document = starts.flatten().cumsum(0) - 1
    return torch.bincount(document)[document].view(position_ids.shape)
