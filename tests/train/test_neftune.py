"""NEFTune's noise goes by each document's own length."""

from __future__ import annotations

import torch
from torch import nn

from train.neftune import Noise, document_lengths

# Two documents of 3 and 2 tokens in a row; one of 4, and padding that goes on.
POSITIONS = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])


def test_lengths_of_documents() -> None:
    assert document_lengths(POSITIONS).tolist() == [[3, 3, 3, 2, 2], [5] * 5]
    continued = torch.tensor([[7, 8, 0]])  # a row need not begin at 0
    assert document_lengths(continued).tolist() == [[2, 2, 1]]


def test_noise_is_as_strong_as_the_paper_says_in_training_alone() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(10, 400)
    noise = Noise(embedding, alpha=5.0)
    tokens = torch.ones_like(POSITIONS)
    plain = embedding.weight[tokens]
    assert torch.equal(embedding(tokens), plain), "before it knows of any documents"
    noise.seeing(POSITIONS)
    added = embedding(tokens) - plain
    limits = 5.0 / (document_lengths(POSITIONS) * 400).sqrt()
    assert (added.abs().amax(-1) <= limits * 1.0001).all()
    assert torch.allclose(added.abs().amax(-1), limits, rtol=0.05), "uniform up to the limit"
    embedding.eval()
    assert torch.equal(embedding(tokens), plain)
