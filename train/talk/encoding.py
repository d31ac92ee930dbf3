"""Prompts and answers by a tokenizer folder: with the tokens that training saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from train.answering import stop_token_ids
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer
from train.stage import StageUserError
from train.talk.engine import Message, PromptError
from train.talk.text import Decoder, TokenDecoder


class Tokens(Protocol):
    """A model's tokens: how prompts become some, and answers text."""

    stop_ids: frozenset[int]
    stops: list[str]  # texts that end a turn and are no token of their own

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None) -> list[int]:
        """The messages and the generation prompt. Raises PromptError."""

    def encode_text(self, text: str) -> list[int]:
        """As the tokenizer begins a text."""

    def decoder(self) -> Decoder:
        """For one answer."""


class TokenizerFolder:
    """`Tokens` of a tokenizer folder. `declared`: the ids that the model itself says end its answers."""

    def __init__(self, chat: ChatTokenizer, declared: Iterable[int] = ()) -> None:
        self.chat = chat
        self.stop_ids = frozenset(stop_token_ids(list(declared), chat))
        marker = chat.template.end_of_turn.strip()
        self.stops = [marker] if marker and chat.backend.token_to_id(marker) is None else []

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None) -> list[int]:
        try:
            return self.chat.encode_prompt(messages, tools or None)
        except (TemplateError, StageUserError) as error:
            raise PromptError(str(error)) from error

    def encode_text(self, text: str) -> list[int]:
        return self.chat.backend.encode(text).ids

    def decoder(self) -> Decoder:
        return TokenDecoder(self.chat.backend)
