"""What chat and server speak with: a model that answers, whatever computes it.

`train.talk.source.open_engine` makes one of a `Source`: transformers (a model folder, a base with an adapter,
a GPTQ model), llama.cpp (a GGUF file).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from artifacts.contract import Source

__all__ = ["Engine", "Message", "Piece", "PromptError", "Sampling", "Source"]

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy. `stop`: texts that end an answer and are no part
    of it, beside the model's own end of turn."""

    max_new_tokens: int | None = None  # None: what is left of the model's context
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of an answer as it comes: whole characters, or none yet. The last one has a `finish_reason`:
    `stop` (the end of the turn or a stop text) or `length`. `tokens`: how many were made so far."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None = None


class PromptError(Exception):
    """The prompt can't be answered (too long, refused by the chat template): one line, for the user."""


class Engine(Protocol):
    """One loaded model. `stream` is called by one thread at a time."""

    source: Source
    context_length: int  # tokens of prompt and answer together
    description: str  # what computes, for people: `bfloat16, cuda:0`

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None = None) -> list[int]:
        """The tokens of a conversation up to the assistant's turn: those that training saw. Raises
        PromptError."""

    def encode_text(self, text: str) -> list[int]:
        """The tokens of plain text, as the tokenizer begins one."""

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """The answer as it is made. Closing the iterator ends the computation soon. Raises PromptError."""

    def close(self) -> None:
        """Give the memory back."""
