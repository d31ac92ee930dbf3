"""Special tokens that a text merely quotes stay text: only the template's own become tokens.

As transformers does with `sanitize_control_tokens=True`: quoted ones are marked before the template is
rendered (`mark_control_tokens`), and the marked text is encoded piece by piece (`encode_marked_chat`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

_QUOTE, _UNQUOTE = "\U000f0000", "\U000f0001"  # transformers' markers

#: Token id and its first character.
PlacedToken = tuple[int, int]


class Marks:
    """Finds and marks the tokens `special` that texts quote."""

    def __init__(self, special: Iterable[str]) -> None:
        special = sorted(filter(None, special), key=len, reverse=True)
        longest_first = "|".join(map(re.escape, special)) or "(?!)"  # (?!) never matches
        self._special = re.compile(longest_first)
        self._starts = sorted({token[0] for token in special})
        self._marked = re.compile(f"{_QUOTE}({longest_first}){_UNQUOTE}|[{_QUOTE}{_UNQUOTE}]")

    def occur_in(self, text: str) -> bool:
        # Single characters are found much faster than an expression of many tokens.
        return any(start in text for start in self._starts) and bool(self._special.search(text))

    def mark(self, value: Any) -> Any:
        """Wrap special tokens in all texts within `value` in markers."""
        if isinstance(value, str):
            clean = value.replace(_QUOTE, "").replace(_UNQUOTE, "")
            return self._special.sub(f"{_QUOTE}\\g<0>{_UNQUOTE}", clean)
        if isinstance(value, Mapping):
            return {key: self.mark(item) for key, item in value.items()}
        return [self.mark(item) for item in value] if isinstance(value, list | tuple) else value

    def split(self, text: str) -> Iterator[tuple[int, str, bool]]:
        """The pieces of a text with markers: position, the piece without them, whether it is a quoted one."""
        position = 0
        for mark in self._marked.finditer(text):
            yield position, text[position : mark.start()], False
            if mark[1]:
                yield mark.start(1), mark[1], True
            position = mark.end()
        yield position, text[position:], False


class QuotedTokens(Marks):
    """Finds, marks and encodes the special tokens of `backend` that texts quote."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        super().__init__(
            token.content for token in backend.get_added_tokens_decoder().values() if token.special
        )
        self._newline_ids = backend.encode("\n", add_special_tokens=False).ids

    def encode(self, text: str) -> Iterator[PlacedToken]:
        """The tokens of a text with markers; characters are counted with them."""
        for position, piece, quoted in self.split(text):
            if quoted:
                yield from ((token, position) for token in self._encode_as_text(piece))
            else:
                yield from self._encode_piece(piece, position)

    def _encode_piece(self, text: str, position: int) -> list[PlacedToken]:
        """The tokens of a piece that lies at `position`.

        In the middle it is encoded behind a line break, which is taken off again, so that SentencePiece adds
        no blank.
        """
        if position and text:
            encoding = self._backend.encode("\n" + text, add_special_tokens=False)
            prefix = len(self._newline_ids)
            if encoding.ids[:prefix] == self._newline_ids:
                starts = [start + position - 1 for start, _ in encoding.offsets]
                return list(zip(encoding.ids, starts, strict=True))[prefix:]
        encoding = self._backend.encode(text, add_special_tokens=False)
        return [
            (token, start + position)
            for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def _encode_as_text(self, text: str) -> list[int]:
        ids = self._tokenize_plain("\n" + text)
        newline = self._tokenize_plain("\n")
        return ids[len(newline) :] if ids[: len(newline)] == newline else self._tokenize_plain(text)

    def _tokenize_plain(self, text: str) -> list[int]:
        """The library's pipeline without its added tokens."""
        backend = self._backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]
