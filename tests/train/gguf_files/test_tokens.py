"""Texts on which tokenizers are compared."""

from __future__ import annotations

import unicodedata

import pytest

from tests.train.backends import VARIABLES, byte_level_backend
from tests.train.chat_templates import CHATML, GEMMA
from train.data.tokenize import ChatTokenizer
from train.gguf_files.texts import TEXTS
from train.gguf_files.tokens import check, corpus, expected_ids
from train.stage import StageError


@pytest.mark.parametrize("template", [CHATML, GEMMA, None])
def test_the_corpus_holds_conversations_special_tokens_and_the_vocabulary(template: str | None) -> None:
    tokenizer = ChatTokenizer(byte_level_backend(), template, VARIABLES)
    texts = corpus(tokenizer)
    added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    assert all(f"a{token}b {token}\n" in texts for token in added)
    conversations = [text for text in texts if "I am a model." in text]
    assert len(conversations) == (2 if template == CHATML else 1 if template else 0)
    ids = {token for each in expected_ids(tokenizer, texts) for token in each}
    assert len(ids) > 0.75 * tokenizer.backend.get_vocab_size()


def test_texts_are_composed() -> None:
    assert all(unicodedata.is_normalized("NFC", text) for text in TEXTS)


def test_the_first_difference_is_told() -> None:
    check(["a", "b"], [[1], [2, 3]], [[1], [2, 3]])
    with pytest.raises(StageError, match=r"reads 'b' as other tokens.*from token 1 on \[4\], not \[3\]"):
        check(["a", "b"], [[1], [2, 3]], iter([[1], [2, 4]]))
    with pytest.raises(StageError, match=r"from token 1 on \[\], not \[3\]"):
        check(["b"], [[2, 3]], [[2]])
