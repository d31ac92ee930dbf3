"""One answer, token by token, alike for every engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np

from train.talk.engine import Piece, PromptError, Sampling
from train.talk.sampling import Chooser
from train.talk.text import Decoder, StopTexts

#: Tokens of a prompt that are computed at a time: between them the answer can be given up.
CHUNK_TOKENS = 256


class TokenModel(Protocol):
    """A model that keeps what it computed for the tokens it has read (its KV cache)."""

    read: list[int]  # tokens that the cache stands for

    def keep(self, count: int) -> None:
        """Forget all but the first `count` tokens read, or more of them where it can't do just that."""

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Read more tokens. Returns the logits behind the last: (vocabulary,) float32."""


def answer(
    model: TokenModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    context_length: int,
    decoder: Decoder,
    stop_ids: Collection[int],
    stops: Sequence[str] = (),
) -> Iterator[Piece]:
    """The pieces of an answer, some without text, so that it can be given up at each.

    What the cache holds of the prompt's beginning (a conversation's earlier turns) is not computed again.
    `stops` come beside those of `sampling`. Raises PromptError, at once.
    """
    limit = room(prompt, sampling, context_length)
    texts = StopTexts([*sampling.stop, *stops])
    return _pieces(model, prompt, Chooser(sampling, prompt), limit, decoder, stop_ids, texts)


def _pieces(
    model: TokenModel,
    prompt: Sequence[int],
    choosing: Chooser,
    limit: int,
    decoder: Decoder,
    stop_ids: Collection[int],
    texts: StopTexts,
) -> Iterator[Piece]:
    if limit == 0:
        yield Piece(text="", tokens=0, finish_reason="length")
        return
    model.keep(min(common_length(model.read, prompt), len(prompt) - 1))
    while len(model.read) + CHUNK_TOKENS < len(prompt):
        model.feed(prompt[len(model.read) : len(model.read) + CHUNK_TOKENS])
        yield Piece(text="", tokens=0)
    logits = model.feed(prompt[len(model.read) :])
    for count in range(1, limit + 1):
        token = choosing.choose(logits)
        if token in stop_ids:
            shown = texts.feed(decoder.flush())
            yield Piece(text=shown + texts.flush(), tokens=count - 1, finish_reason="stop")
            return
        shown = texts.feed(decoder.feed(token))
        if texts.found:
            yield Piece(text=shown, tokens=count, finish_reason="stop")
            return
        if count < limit:
            yield Piece(text=shown, tokens=count)
            logits = model.feed([token])
    shown += texts.feed(decoder.flush())
    reason = "stop" if texts.found else "length"
    yield Piece(text=shown + texts.flush(), tokens=limit, finish_reason=reason)


def room(prompt: Sequence[int], sampling: Sampling, context_length: int) -> int:
    """How many tokens an answer may have. Raises PromptError for a prompt that leaves none."""
    if not prompt:
        raise PromptError("the prompt is empty")
    if len(prompt) >= context_length:
        raise PromptError(
            f"the prompt has {len(prompt):,} tokens, and the model's context holds {context_length:,}, "
            "with the answer"
        )
    left = context_length - len(prompt)
    return left if sampling.max_new_tokens is None else min(sampling.max_new_tokens, left)


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Of the longest common prefix."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))
