"""Tokens to text as they come: whole characters, and nothing of a text that ends the answer."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

from tokenizers import Tokenizer

_UNFINISHED = "\ufffd"  # the character for bytes that are none yet


class Decoder(Protocol):
    """Makes text of one answer's tokens."""

    def feed(self, token: int) -> str:
        """The whole characters that one more token completes; often one word, or none."""

    def flush(self) -> str:
        """What is left at the end: U+FFFD for bytes that never became a character."""


class TokenDecoder:
    """By a `tokenizers` backend. Special tokens have no text. Joined, the pieces are what the backend decodes
    of all tokens."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._ids: list[int] = []
        self._start = 0  # of the tokens that new ones are decoded with: they may join or space them
        self._shown = 0  # how many tokens are in the text so far

    def feed(self, token: int) -> str:
        self._ids.append(token)
        text = self._new_text()
        if not text or text.endswith(_UNFINISHED):  # the next token may still change it
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return text

    def flush(self) -> str:
        text = self._new_text()
        self._start, self._shown = self._shown, len(self._ids)
        return text

    def _new_text(self) -> str:
        before = self._decode(self._ids[self._start : self._shown])
        return self._decode(self._ids[self._start :])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)


class ByteDecoder:
    """By what bytes each token stands for. `strips_blank`: SentencePiece begins a text with one."""

    def __init__(self, piece: Callable[[int], bytes], *, strips_blank: bool = False) -> None:
        self._piece, self._strips_blank = piece, strips_blank
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._strip(self._utf8.decode(self._piece(token)))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)

    def _strip(self, text: str) -> str:
        if text and self._strips_blank:
            self._strips_blank = False
            return text.removeprefix(" ")
        return text


class StopTexts:
    """Passes text on until one of `stops` is complete in it (where several are, the one that began first).
    What may become one is held back. Whether it comes in one piece or in many makes no difference."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What can be shown of the held text and `text`. Once `found` is set, the answer is over."""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            shown, self._held = self._held[: min(ends)[1]], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back and became no stop after all."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that begin `stop`."""
    return next(
        (size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0
    )
