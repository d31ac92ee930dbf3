"""How close answers are to their references: exact match, BLEU-4, ROUGE-1, -2 and -L.

BLEU is sacrebleu's corpus BLEU. ROUGE is written out here: the `rouge-score` package imports nltk (3 s) for
a few lines of counting; a test holds both to the same values. Words are runs of letters and digits, in lower
case, as `rouge-score` has them for ASCII text; letters of other alphabets count as letters too (it drops
them), and a Chinese, Japanese or Korean character is a word of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+")
_CJK_CHARACTER = re.compile(rf"[{_CJK}]")
_CJK_SHARE = 0.1  # of the references' characters, from which on BLEU splits by character


def scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """`exact_match`, `bleu4`, `rouge1`, `rouge2`, `rougeL`, each from 0 to 100, rounded to 2 places.

    ROUGE values are F-measures averaged over the records. Raises ValueError where there is nothing to score.
    """
    if not references or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers to {len(references)} references")
    pairs = [(words(answer), words(reference)) for answer, reference in zip(answers, references, strict=True)]
    matches = [a.strip() == r.strip() for a, r in zip(answers, references, strict=True)]
    values = {
        "exact_match": _mean(matches),
        "bleu4": bleu(answers, references) / 100,
        "rouge1": _mean([rouge_n(answer, reference, 1) for answer, reference in pairs]),
        "rouge2": _mean([rouge_n(answer, reference, 2) for answer, reference in pairs]),
        "rougeL": _mean([rouge_l(answer, reference) for answer, reference in pairs]),
    }
    return {name: round(100 * value, 2) for name, value in values.items()}


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4, 0 to 100, over mteval-v13a words, or characters where much of the text is CJK."""
    from sacrebleu.metrics import BLEU

    text = "".join(references)
    cjk = len(_CJK_CHARACTER.findall(text)) > _CJK_SHARE * len(text)
    return float(BLEU(tokenize="zh" if cjk else "13a").corpus_score(list(answers), [list(references)]).score)


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def rouge_n(answer: Sequence[str], reference: Sequence[str], n: int) -> float:
    """F-measure of the n-grams that both have (https://aclanthology.org/W04-1013)."""
    left, right = _ngrams(answer, n), _ngrams(reference, n)
    return _f_measure((left & right).total(), left.total(), right.total())


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F-measure of the longest common subsequence."""
    return _f_measure(common_subsequence_length(answer, reference), len(answer), len(reference))


def common_subsequence_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the usual table at a time as the bits of an integer
    (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004)."""
    positions: dict[str, int] = {}
    for index, word in enumerate(left):
        positions[word] = positions.get(word, 0) | 1 << index
    everything = (1 << len(left)) - 1
    row = everything  # a zero bit: the common subsequence grows at this word of `left`
    for word in right:
        matched = row & positions.get(word, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(left) - row.bit_count()


def _ngrams(items: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[start : start + n]) for start in range(len(items) - n + 1))


def _f_measure(common: int, answer: int, reference: int) -> float:
    return 2 * common / (answer + reference) if common else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
