"""The few token sequences on which a merged model is compared with its base and adapter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from train.data.templates import TemplateError
from train.stage import StageUserError

#: Tokens of each sequence, at most.
LENGTH = 32
_CONVERSATIONS: tuple[tuple[str, ...], ...] = (  # user and assistant in turn, the last turn is the model's
    ("Why is the sky blue? Answer in one sentence.",),
    (
        "Write a function that reverses a list.",
        "def reverse(items):\n    return items[::-1]",
        "And one that sorts it, largest first?",
    ),
    ("把下面的句子翻译成英文：今天的会议改到下午三点。",),
)
_TEXTS = (
    "The committee met on 14 March 2019 and voted, by a margin of 7 to 2, to postpone the decision until the "
    "auditors' report had been read by all of its members.",
    "SELECT name, COUNT(*) AS orders FROM customers JOIN orders USING (customer_id) GROUP BY name HAVING "
    "COUNT(*) > 10 ORDER BY orders DESC;",
)
_RANDOM_SEQUENCES = 2
_STEP = 2_654_435_761  # Knuth's multiplicative hash: ids from all over the vocabulary


def token_sequences(
    tokenizer: Path, vocabulary: int, trained: Collection[int] = (), *, trust_remote_code: bool = False
) -> list[list[int]]:
    """At most `LENGTH` ids each, all below `vocabulary`: conversations in the chat template of the folder
    `tokenizer`, plain texts, ids from all over the vocabulary, and the `trained` ids (the newest first).

    A folder without a tokenizer or a template that takes them leaves those out.
    """
    found = [*_written(tokenizer, trust_remote_code)]
    found += [
        [(_STEP * (row * LENGTH + column + 1)) % 2**32 % vocabulary for column in range(LENGTH)]
        for row in range(_RANDOM_SEQUENCES)
    ]
    found.append(sorted(trained, reverse=True))
    inside = [[token for token in tokens if token < vocabulary][:LENGTH] for tokens in found]
    return [tokens for tokens in inside if tokens]


def _written(folder: Path, trust_remote_code: bool) -> Iterator[list[int]]:
    from train.data.loading import load_chat_tokenizer

    try:
        tokenizer = load_chat_tokenizer(folder, trust_remote_code=trust_remote_code)
    except StageUserError:
        return
    yield from (tokenizer.backend.encode(text).ids for text in _TEXTS)
    for turns in _CONVERSATIONS:
        try:
            yield tokenizer.encode_prompt(_messages(turns))
        except (TemplateError, StageUserError):
            continue


def _messages(turns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(turns)
    ]
