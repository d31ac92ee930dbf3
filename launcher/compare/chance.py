"""Whether a difference between two models on the same questions is more than chance. Pure Python.

McNemar's test in its exact form, for answers that are right or wrong: Q. McNemar, "Note on the sampling error
of the difference between correlated proportions or percentages", Psychometrika 12 (1947) 153-157; recommended
for two models and one test set by T. G. Dietterich, "Approximate Statistical Tests for Comparing Supervised
Classification Learning Algorithms", Neural Computation 10 (1998) 1895-1923.

The paired bootstrap, for a score of each answer: P. Koehn, "Statistical Significance Tests for Machine
Translation Evaluation", EMNLP 2004.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Below this probability of so large a difference by chance alone, one speaks of a difference.
LEVEL = 0.05
_RESAMPLES = 2000
#: From so many questions on, resampled means are normally distributed to all that is shown of them.
_NORMAL_FROM = 1000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`p`: probability of at least so large a difference where the two are equally good."""

    p: float
    test: str
    questions: int
    detail: str = ""

    @property
    def is_difference(self) -> bool:
        return self.p < LEVEL

    def __str__(self) -> str:
        if self.p >= 1:
            return "no difference"
        found = "more than chance" if self.is_difference else "may be chance"
        return f"{found} ({p_text(self.p)})"


def p_text(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided p of the exact test: whether the questions that only one of the two answers rightly would
    fall so unevenly by the toss of a coin."""
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    tosses = lost + gained
    if tosses == 0:
        return 1.0
    tail = math.fsum(math.exp(_log_share(tosses, heads)) for heads in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail)


def bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of the paired bootstrap of the mean difference: how often one resampled from the questions
    has the other sign, or none. 2,000 resamples; from 1,000 questions on the normal distribution instead,
    which they tend to."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    count = len(differences)
    if count < 2 or not any(differences):
        return 1.0
    mean = math.fsum(differences) / count
    if mean == 0:
        return 1.0
    if count >= _NORMAL_FROM:
        error = statistics.pstdev(differences) / math.sqrt(count)
        return math.erfc(abs(mean) / error / math.sqrt(2)) if error else 0.0
    draw = random.Random(seed)
    sign = math.copysign(1.0, mean)
    against = sum(sign * math.fsum(draw.choices(differences, k=count)) <= 0 for _ in range(_RESAMPLES))
    return min(1.0, 2 * (against + 1) / (_RESAMPLES + 1))


def _log_share(tosses: int, heads: int) -> float:
    """Logarithm of the probability of `heads` in so many tosses of a fair coin."""
    ways = math.lgamma(tosses + 1) - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1)
    return ways - tosses * math.log(2)
