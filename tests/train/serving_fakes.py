"""An engine without a model: it repeats the last message (`history`: all of them), a word at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from train.talk.engine import Message, Piece, PromptError, Sampling, Source


class EchoEngine:
    """Tokens are characters' code points. `pause_s` between words; `words`: instead of the last message's."""

    def __init__(self, *, pause_s: float = 0.0, words: Sequence[str] | None = None) -> None:
        self.source = Source(name="echo", folder=None)
        self.context_length = 4000
        self.description = "repeats what it is told"
        self.asked: list[tuple[list[Message], list[Any] | None]] = []
        self.samplings: list[Sampling] = []
        self.made, self.closed_early = 0, 0
        self.closed = threading.Event()
        self._pause_s, self._words = pause_s, words

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None = None) -> list[int]:
        if messages[-1]["content"] == "refused":
            raise PromptError("the template refuses it")
        self.asked.append((list(messages), tools))
        if messages[-1]["content"] == "history":
            return self.encode_text(" ".join(f"{each['role']}: {each['content']}" for each in messages))
        return self.encode_text(messages[-1]["content"])

    def encode_text(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        self.samplings.append(sampling)
        words = self._words or "".join(map(chr, prompt)).split(" ")
        if words == ["broken"]:
            raise RuntimeError("no such word")
        try:
            limit = sampling.max_new_tokens or len(words) + 1
            for number, word in enumerate(words[:limit], 1):
                time.sleep(self._pause_s)
                self.made += 1
                yield Piece(text=word if number == 1 else f" {word}", tokens=number)
        except GeneratorExit:
            self.closed_early += 1
            raise
        if limit > len(words):
            yield Piece(text="", tokens=len(words) + 1, finish_reason="stop")
        else:
            yield Piece(text="", tokens=limit, finish_reason="length")

    def close(self) -> None:
        self.closed.set()
