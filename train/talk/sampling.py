"""The choice of the next token from a model's logits, in numpy: alike for every engine, and by the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.talk.engine import Sampling

_LIKELY = 1024  # tokens among which top_p is looked for first: sorting a vocabulary takes milliseconds


class Chooser:
    """Chooses one answer's tokens, in the order of transformers' `generate`: repetition penalty, temperature,
    top_k, top_p."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._seen = set(prompt)
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: np.ndarray) -> int:
        """`logits`: (vocabulary,) float32."""
        penalized = self._penalized(logits)
        if self._sampling.temperature <= 0:
            token = int(penalized.argmax())
        else:
            token = self._drawn(penalized.astype(np.float64) / self._sampling.temperature)
        self._seen.add(token)
        return token

    def _penalized(self, logits: np.ndarray) -> np.ndarray:
        """Tokens that occurred become less likely (https://arxiv.org/abs/1909.05858)."""
        penalty = self._sampling.repetition_penalty
        if penalty == 1.0:
            return logits
        seen = np.fromiter((token for token in self._seen if token < len(logits)), np.int64)
        logits = logits.copy()
        logits[seen] = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        return logits

    def _drawn(self, scores: np.ndarray) -> int:
        top_k, top_p = self._sampling.top_k, self._sampling.top_p
        if not top_k and top_p >= 1:
            return int(self._pick(_softmax(scores)))
        tokens = best(scores, min(top_k or _LIKELY, len(scores)))
        if not top_k and _share(scores, tokens) < top_p:
            tokens = best(scores, len(scores))
        shares = _softmax(scores[tokens]) * (1.0 if top_k else _share(scores, tokens))
        before = np.cumsum(shares) - shares  # a token stays as long as those before it are below top_p
        kept = max(1, int(np.count_nonzero(before < top_p)))
        return int(tokens[self._pick(shares[:kept] / shares[:kept].sum())])

    def _pick(self, shares: np.ndarray) -> int:
        """An index by its share."""
        point = self._random.random() * shares.sum()
        return min(int(np.searchsorted(np.cumsum(shares), point, side="right")), len(shares) - 1)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` tokens of the highest scores, best first; of equals the one of the lower id first."""
    if count < len(scores):
        found = np.sort(np.argpartition(-scores, count - 1)[:count])
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")]


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _share(scores: np.ndarray, tokens: np.ndarray) -> float:
    """Of all probability that lies on `tokens`, the best of which comes first."""
    powers = np.exp(scores - scores[tokens[0]])
    return float(powers[tokens].sum() / powers.sum())
