"""A GGUF file's own tokenizer and chat template, for files that come without a tokenizer folder."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp

from train.data.quoted import Marks
from train.data.templates import ChatTemplate, TemplateError
from train.talk.engine import Message, PromptError
from train.talk.text import ByteDecoder, Decoder


class GgufTokens:
    """Texts to token ids and back as the file says. Raises TemplateError for a template that can't be
    compiled."""

    def __init__(self, model: Any) -> None:
        self._vocabulary = vocabulary = llama_cpp.llama_model_get_vocab(model)
        every = range(llama_cpp.llama_vocab_n_tokens(vocabulary))
        special = [self._text(token) for token in every if self._is_special(token)]
        self.stop_ids = frozenset(token for token in every if llama_cpp.llama_vocab_is_eog(vocabulary, token))
        self._bos_id = llama_cpp.llama_vocab_bos(vocabulary)
        ids = {"bos_token": self._bos_id, "eos_token": llama_cpp.llama_vocab_eos(vocabulary)}
        named = {name: self._text(token) for name, token in ids.items() if token >= 0}
        self._bos = named.get("bos_token", "")
        self._adds_bos = llama_cpp.llama_vocab_get_add_bos(vocabulary)
        self._marks = Marks(special)
        template = llama_cpp.llama_model_chat_template(model, None)
        self._has_template = bool(template)
        self._template = ChatTemplate((template or b"").decode("utf-8", "replace"), named, special)
        marker = self._template.end_of_turn.strip()
        self.stops = [marker] if marker and marker not in special else []
        self._is_sentencepiece = llama_cpp.llama_vocab_type(vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_SPM

    def encode_chat(self, messages: Sequence[Message], tools: list[Any] | None) -> list[int]:
        """The messages and the generation prompt. As llama.cpp does, BOS is added where the file asks for one
        and the template writes none. Raises PromptError."""
        if not self._has_template:
            raise PromptError("the file has no chat template: it is no model to chat with")
        try:
            text = self._template.render(
                self._marks.mark(messages), self._marks.mark(tools or None), generation_prompt=True
            )
        except TemplateError as error:
            raise PromptError(str(error)) from error
        adds_bos = self._adds_bos and not (self._bos and text.startswith(self._bos))
        ids = [self._bos_id] if adds_bos else []
        for position, piece, quoted in self._marks.split(text):
            ids += self._encode_piece(piece, position, special=not quoted)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """As the tokenizer begins a text."""
        return self._encode(text, add_special=True)

    def piece(self, token: int) -> bytes:
        """What a token stands for; nothing for one that steers the model."""
        return self._bytes_of(token, special=False)

    def decoder(self) -> Decoder:
        return ByteDecoder(self.piece, strips_blank=self._is_sentencepiece)

    def _encode_piece(self, text: str, position: int, *, special: bool) -> list[int]:
        """In the middle of a text a piece is encoded behind a line break, which is taken off again, so that
        SentencePiece adds no blank."""
        if not text:
            return []
        if position and self._is_sentencepiece:
            line_break = self._encode("\n", special=special)
            ids = self._encode("\n" + text, special=special)
            if ids[: len(line_break)] == line_break:
                return ids[len(line_break) :]
        return self._encode(text, special=special)

    def _encode(self, text: str, *, add_special: bool = False, special: bool = True) -> list[int]:
        """`add_special`: with the BOS (and EOS) that the file asks for; `special`: texts of special tokens
        become these."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 2  # a token stands for a byte at least, and two are added
        tokens = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, data, len(data), tokens, size, add_special, special
        )
        return tokens[:count]

    def _bytes_of(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def _text(self, token: int) -> str:
        return self._bytes_of(token, special=True).decode("utf-8", "replace")

    def _is_special(self, token: int) -> bool:
        attributes = llama_cpp.llama_vocab_get_attr(self._vocabulary, token)
        return bool(attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL)
