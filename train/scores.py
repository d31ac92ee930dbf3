"""How close answers are to their references: exact match, BLEU-4, ROUGE-1, -2 and -L.

BLEU is sacrebleu's corpus BLEU, ROUGE is rouge-score's with words of our own: runs of letters and digits, in
lower case, as its own tokenizer has them for ASCII text; letters of other alphabets count as letters too (it
drops them), and a Chinese, Japanese or Korean character is a word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ROUGE = ("rouge1", "rouge2", "rougeL")
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
    matches = [a.strip() == r.strip() for a, r in zip(answers, references, strict=True)]
    values = {
        "exact_match": 100 * sum(matches) / len(matches),
        "bleu4": bleu(answers, references),
        **rouge(answers, references),
    }
    return {name: round(value, 2) for name, value in values.items()}


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4, 0 to 100, over mteval-v13a words, or characters where much of the text is CJK."""
    from sacrebleu.metrics import BLEU

    text = "".join(references)
    cjk = len(_CJK_CHARACTER.findall(text)) > _CJK_SHARE * len(text)
    return float(BLEU(tokenize="zh" if cjk else "13a").corpus_score(list(answers), [list(references)]).score)


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F-measures, 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(_ROUGE, tokenizer=_Words())
    rows = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {name: 100 * sum(row[name].fmeasure for row in rows) / len(rows) for name in _ROUGE}


class _Words:
    """What `RougeScorer` takes for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
