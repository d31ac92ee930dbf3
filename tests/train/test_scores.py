"""Scores against the packages that define them."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from train.scores import bleu, bleu_tokenizer, characters, scores, words

ANSWERS = ["The cat sat on the mat.", "It's 42 degrees, isn't it?", "no", "", "the the the cat", "A_b c-d"]
REFERENCES = ["A cat sat on a mat.", "It is 42 degrees outside.", "No", "something", "the cat", "a b c d"]


def reference_rouge(answers: list[str], references: list[str]) -> dict[str, float]:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score(target, prediction) for target, prediction in zip(references, answers, strict=True)]
    return {name: 100 * sum(row[name].fmeasure for row in rows) / len(rows) for name in rows[0]}


def test_equal_those_of_sacrebleu_and_rouge_score() -> None:
    found = scores(ANSWERS, REFERENCES)
    expected = reference_rouge(ANSWERS, REFERENCES)
    expected["bleu4"] = sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.006)
    assert 0 < found["bleu4"] < 100


ascii_text = st.text(st.characters(codec="ascii"), max_size=40) | st.text("ab c", max_size=40)


@given(st.lists(st.tuples(ascii_text, ascii_text), min_size=1, max_size=4))
def test_rouge_equals_rouge_score_for_any_ascii_text(pairs: list[tuple[str, str]]) -> None:
    answers, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = scores(answers, references)
    expected = reference_rouge(answers, references)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.006)


def test_exact_match_ignores_blanks_around_the_answer_only() -> None:
    assert scores([" yes\n", "Yes", "y es"], ["yes", "yes", "yes"])["exact_match"] == pytest.approx(33.33)


def test_a_perfect_copy_scores_a_hundred() -> None:
    text = ["one two three four five"]
    assert set(scores(text, text).values()) == {100.0}


def test_words_of_other_scripts_count() -> None:
    assert words("Café №5: Привет_мир!") == ["café", "5", "привет", "мир"]
    assert words("今天5点 ok") == ["今天", "5", "点", "ok"]
    assert words("我们研究自然语言处理") == ["我们", "研究", "自然语言", "处理"]
    assert scores(["Привет, мир"], ["привет мир"])["rougeL"] == 100.0


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("今天天气很好啊", "zh"),
        ("안녕하세요 여러분", "char"),
        ("東京は日本の首都です", "char"),
        ("Köln am Rhein 2026", "13a"),
    ],
)
def test_identical_texts_of_any_script_score_a_hundred(text: str, tokenizer: str) -> None:
    assert bleu_tokenizer(text) == tokenizer
    assert set(scores([text], [text]).values()) == {100.0}


def test_japanese_and_korean_count_by_character() -> None:
    """Not as jieba would cut the Chinese characters in a Japanese text: 東京都 is one word of its."""
    assert characters("東京都は") == ["東", "京", "都", "は"]
    assert scores(["東京都は広い"], ["東京府は広い"])["rouge1"] == pytest.approx(100 * 5 / 6, abs=0.01)
    assert scores(["한국어 좋다"], ["한국말 좋다"])["rouge1"] == pytest.approx(80.0)


def test_chinese_bleu_splits_by_character() -> None:
    assert bleu(["今天天气很好啊"], ["今天天气很好"]) > 50


@pytest.mark.parametrize(("answers", "references"), [([], []), (["a"], ["a", "b"])])
def test_nothing_to_score(answers: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="answers to"):
        scores(answers, references)
