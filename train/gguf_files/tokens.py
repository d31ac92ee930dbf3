"""Whether llama.cpp reads text as the tokens that training used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.gguf_files.family import opens_with_blank
from train.gguf_files.texts import QUESTIONS, TEXTS
from train.stage import StageError

#: Of the vocabulary, evenly spread, each as a text of its own.
_VOCABULARY_SAMPLE = 5000


def corpus(tokenizer: ChatTokenizer) -> list[str]:
    """Texts to compare: of several scripts and shapes, every added token amid words, a conversation as the
    template writes it, and tokens of the vocabulary themselves. Where the tokenizer puts a blank before the
    beginning of a text alone, each begins with a special token, as conversations do."""
    backend = tokenizer.backend
    opening = ""
    if opens_with_blank(json.loads(backend.to_str())):
        opening = next(
            (each.content for each in backend.get_added_tokens_decoder().values() if each.special), ""
        )
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    texts = [*TEXTS, *(f"a{token}b {token}\n" for token in added), "".join(added)]
    conversation = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": "I am a model.\n\n- one\n- two"},
        {"role": "user", "content": TEXTS[7]},
    ]
    for messages in (conversation, [{"role": "system", "content": TEXTS[2]}, *conversation]):
        try:
            texts.append(tokenizer.template.render(messages, generation_prompt=True))
        except TemplateError:  # a template without a place for a system text
            continue
    size = backend.get_vocab_size()
    ids = range(0, size, max(1, size // _VOCABULARY_SAMPLE))
    words = backend.decode_batch([[token] for token in ids], skip_special_tokens=True)
    texts += [word for word in words if word and "\ufffd" not in word]
    return [text if text.startswith(opening) else opening + text for text in texts]


def compare(file: Path, tokenizer: ChatTokenizer) -> int:
    """How many texts were compared, all of them equal. Raises StageError for the first that is not."""
    from llama_cpp import Llama

    texts = corpus(tokenizer)
    model = Llama(str(file), vocab_only=True, verbose=False)
    found = (model.tokenize(text.encode(), add_bos=False, special=True) for text in texts)
    check(texts, expected_ids(tokenizer, texts), found)
    return len(texts)


def check(texts: Sequence[str], expected: Sequence[Sequence[int]], found: Iterable[Sequence[int]]) -> None:
    for text, wanted, ids in zip(texts, expected, found, strict=True):
        if list(wanted) != list(ids):
            at = next((at for at, (a, b) in enumerate(zip(wanted, ids, strict=False)) if a != b), None)
            at = min(len(wanted), len(ids)) if at is None else at
            raise StageError(
                f"llama.cpp reads {text[:60]!r} as other tokens than the model was trained with: from token "
                f"{at} on {list(ids[at : at + 5])}, not {list(wanted[at : at + 5])}",
                "nothing was written: the file would answer worse than the model",
            )


def expected_ids(tokenizer: ChatTokenizer, texts: Sequence[str]) -> list[list[int]]:
    encodings: Any = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]
