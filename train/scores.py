"""How close answers are to their references: exact match, BLEU-4, ROUGE-1, -2 and -L.

BLEU is sacrebleu's corpus BLEU, ROUGE is rouge-score's with words of our own: runs of letters and digits, in
lower case, as its own tokenizer has them for ASCII text; letters of other alphabets count as letters too (it
drops them). Chinese is cut into words by jieba; each Korean or Japanese character is a word of its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

_ROUGE = ("rouge1", "rouge2", "rougeL")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_KANA, _HANGUL = "\u3040-\u30ff", "\uac00-\ud7af"
_CJK = _KANA + _HANGUL + _HAN
_WORD = re.compile(rf"[{_HAN}]+|[{_KANA}{_HANGUL}]|(?:(?![{_CJK}])[^\W_])+")
_CJK_CHARACTER = re.compile(rf"[{_CJK}]")
_HAN_CHARACTER = re.compile(rf"[{_HAN}]")
_JAPANESE_OR_KOREAN = re.compile(rf"[{_KANA}{_HANGUL}]")
_CJK_SHARE = 0.1  # of the references' characters, from which on BLEU splits by character


def scores(
    answers: Sequence[str], references: Sequence[str], each: Sequence[Mapping[str, float]] | None = None
) -> dict[str, float]:
    """`exact_match`, `bleu4`, `rouge1`, `rouge2`, `rougeL`, each from 0 to 100, rounded to 2 places.

    ROUGE values are F-measures averaged over the records: of `each` of them, where `rouge` has been asked
    before. Raises ValueError where there is nothing to score.
    """
    if not references or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers to {len(references)} references")
    matches = [a.strip() == r.strip() for a, r in zip(answers, references, strict=True)]
    values = {
        "exact_match": 100 * sum(matches) / len(matches),
        "bleu4": bleu(answers, references),
        **mean(each or rouge(answers, references)),
    }
    return {name: round(value, 2) for name, value in values.items()}


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4, 0 to 100, over mteval-v13a words, or characters where much of the text is CJK."""
    from sacrebleu.metrics import BLEU

    tokenizer = bleu_tokenizer("".join(references))
    return float(BLEU(tokenize=tokenizer).corpus_score(list(answers), [list(references)]).score)


def bleu_tokenizer(text: str) -> str:
    """sacrebleu's name for it. Its Chinese one splits no Korean and no Japanese."""
    if len(_CJK_CHARACTER.findall(text)) <= _CJK_SHARE * len(text):
        return "13a"
    return "char" if _JAPANESE_OR_KOREAN.search(text) else "zh"


def rouge(answers: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
    """F-measures of each answer, 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer

    by_word = RougeScorer(_ROUGE, tokenizer=_Words(words))
    by_character = RougeScorer(_ROUGE, tokenizer=_Words(characters))
    rows = [
        (by_character if _JAPANESE_OR_KOREAN.search(reference) else by_word).score(reference, answer)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return [{name: 100 * row[name].fmeasure for name in _ROUGE} for row in rows]


def mean(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each score over the answers."""
    return {name: sum(row[name] for row in each) / len(each) for name in _ROUGE}


class _Words:
    """What `RougeScorer` takes for a tokenizer."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.tokenize = split


def words(text: str) -> list[str]:
    """Words; Chinese ones as jieba cuts them."""
    runs = _WORD.findall(text.lower())
    return [word for run in runs for word in (_cutter()(run) if _HAN_CHARACTER.match(run) else [run])]


def characters(text: str) -> list[str]:
    """Words, but every Chinese, Japanese or Korean character one: of a text that mixes kana or Hangul with
    Chinese characters, which jieba would take for Chinese."""
    runs = _WORD.findall(text.lower())
    return [word for run in runs for word in (list(run) if _HAN_CHARACTER.match(run) else [run])]


@functools.cache
def _cutter() -> Callable[[str], list[str]]:
    """jieba, whose dictionary takes a second to load: only where there is Chinese."""
    import jieba

    jieba.setLogLevel("WARNING")
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut
