"""Chat and API ask with the tokens that training saw, over 50 conversations and every template."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.train.backends import VARIABLES, byte_level_backend
from tests.train.chat_templates import CHATML, TEMPLATES, chat
from train.chat.conversation import Conversation
from train.data.named_templates import NAMED
from train.data.tokenize import ChatTokenizer, Document
from train.serving.requests import ChatRequest, read
from train.talk.encoding import TokenizerFolder
from train.talk.engine import PromptError

WORDS = (
    "plain",
    "two  blanks",
    "说中文",
    "안녕",
    "🤖",
    "<|im_end|>",
    "</s>",
    "[INST]",
    "tab\t",
    "a\nb",
    " ",
    "{{ x }}",
)


def conversation(seed: int) -> list[dict[str, str]]:
    """One to four turns of such words, with or without a system message."""
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 6))) for _ in range(2 * chance.randint(1, 4))]
    said = [text.strip() or "?" for text in texts]
    return chat(*said, system=chance.choice([None, "Be brief."]))


CHATS = [conversation(seed) for seed in range(50)]
#: What a template's generation prompt opens though finished turns have none of it.
OPENED = {"thinking prompt": "<think>\n"}
EVERY_TEMPLATE = TEMPLATES | {name: template.jinja() for name, template in NAMED.items()}


@functools.cache
def backend() -> Tokenizer:
    return byte_level_backend()


def trained_behind(tokenizer: ChatTokenizer, messages: list[dict[str, str]]) -> list[int] | str:
    """The tokens that training has in front of the last answer; why it refuses the conversation."""
    (document,) = tokenizer.encode([{"messages": messages}])
    if not isinstance(document, Document):
        return str(document)
    at = len(document) - 1
    while document.labels[at] == -100:
        at -= 1
    while document.labels[at - 1] != -100:
        at -= 1
    return document.input_ids[:at].tolist()


def chatted(tokens: TokenizerFolder, messages: list[dict[str, str]]) -> list[int] | str:
    """The tokens in front of the last answer as `slipway chat` comes to them, turn by turn."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    talk = Conversation(system)
    asked: list[dict[str, Any]] = []
    for message in messages[1 if system else 0 :]:
        if message["role"] == "user":
            asked = talk.ask(message["content"])
        else:
            talk.answer(message["content"])
    return encoded(tokens, asked)


def through_the_api(tokens: TokenizerFolder, messages: list[dict[str, str]]) -> list[int] | str:
    request = read(ChatRequest, json.dumps({"messages": messages[:-1]}).encode())
    return encoded(tokens, request.conversation())


def encoded(tokens: TokenizerFolder, messages: list[dict[str, Any]]) -> list[int] | str:
    try:
        return tokens.encode_chat(messages, None)
    except PromptError as error:
        return str(error)


@pytest.mark.parametrize("name", EVERY_TEMPLATE)
def test_chat_and_api_ask_with_the_tokens_of_training(name: str) -> None:
    tokenizer = ChatTokenizer(backend(), EVERY_TEMPLATE[name], VARIABLES)
    tokens = TokenizerFolder(tokenizer)
    refused = 0
    for messages in CHATS:
        asked = chatted(tokens, messages)
        assert through_the_api(tokens, messages) == asked
        if isinstance(asked, str):
            refused += 1
        else:
            opened = backend().encode(OPENED.get(name, ""), add_special_tokens=False).ids
            assert asked == [*trained_behind(tokenizer, messages), *opened], messages
    assert refused in (0, sum(messages[0]["role"] == "system" for messages in CHATS))


def test_where_answers_end() -> None:
    chatml = TokenizerFolder(ChatTokenizer(backend(), CHATML, VARIABLES), declared=[7])
    assert chatml.stop_ids >= {7, backend().token_to_id("<|im_end|>")}
    assert chatml.stops == []
    written = CHATML.replace("<|im_end|>", "###END")
    texts = TokenizerFolder(ChatTokenizer(backend(), written, VARIABLES))
    assert texts.stops == ["###END"], "no token of its own: it is looked for in the text"


def test_what_has_no_template() -> None:
    with pytest.raises(PromptError, match="chat template"):
        TokenizerFolder(ChatTokenizer(backend(), None, VARIABLES)).encode_chat(chat("hi"), None)


def test_plain_text_begins_as_the_tokenizer_begins_one() -> None:
    tokens = TokenizerFolder(ChatTokenizer(backend(), CHATML, VARIABLES))
    assert tokens.encode_text("a")[0] == backend().token_to_id("<s>")
