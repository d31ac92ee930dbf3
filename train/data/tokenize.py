"""Conversations to token ids and labels, by the `tokenizers` library in batches.

Token for token what `apply_chat_template(tokenize=True, sanitize_control_tokens=True)` gives (no tokens are
added beside those of the template, so a BOS that the template writes is the only one). Special tokens that a
message merely quotes stay text: only the template's own become tokens.
"""

from __future__ import annotations

import array
import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from artifacts.contract import IGNORED_LABEL
from train.data.templates import ChatTemplate, Message, Rendered, Span, TemplateError

# A batch is handed to the library at once. An encoding takes some 100 bytes a token until its ids are copied.
BATCH_RECORDS = 1024
BATCH_CHARACTERS = 256 * 1024

# transformers' markers of quoted special tokens (`mark_control_tokens`)
_QUOTE, _UNQUOTE = "\U000f0000", "\U000f0001"


@dataclass(frozen=True)
class Document:
    """One conversation. int32 arrays of one length; `labels` are ids where learnt, else IGNORED_LABEL."""

    input_ids: np.ndarray  # (tokens,)
    labels: np.ndarray  # (tokens,)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised_tokens(self) -> int:
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))


#: A record on its way: to be encoded, encoded already (it quotes special tokens, rare), or refused.
Item = Rendered | Document | TemplateError


class ChatTokenizer:
    """A tokenizer with its chat template.

    `special_tokens` maps names (`eos_token`) to texts. `train.data.loading` makes one from a model folder.
    """

    def __init__(self, backend: Tokenizer, template: str, special_tokens: Mapping[str, str]) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        self.template = ChatTemplate(template, special_tokens, special)
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self.template_sha256 = hashlib.sha256(template.encode()).hexdigest()
        self.eos_id = backend.token_to_id(special_tokens.get("eos_token", ""))
        longest_first = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        self._special = re.compile(longest_first or "(?!)")  # (?!) never matches
        self._special_starts = sorted({token[0] for token in special if token})
        self._marked = re.compile(f"{_QUOTE}({longest_first or '(?!)'}){_UNQUOTE}|[{_QUOTE}{_UNQUOTE}]")
        self._newline_ids = backend.encode("\n", add_special_tokens=False).ids

    def encode(self, conversations: Iterable[Sequence[Message]]) -> Iterator[Document | TemplateError]:
        """One document per conversation, in order; the error where the template refuses it.

        The library encodes a batch on all cores (without the interpreter's lock) while the next is rendered.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead: deque[tuple[list[Item], Future[list[Encoding]]]] = deque()
            for batch in self._render_batches(conversations):
                texts = [rendered.text for rendered in batch if isinstance(rendered, Rendered)]
                ahead.append((batch, pool.submit(self.backend.encode_batch, texts, add_special_tokens=False)))
                if len(ahead) == 2:
                    yield from self._finish(*ahead.popleft())
            while ahead:
                yield from self._finish(*ahead.popleft())

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The token ids that a model is asked with: the messages and the generation prompt."""
        text = self.template.render(self._mark_quoted(messages), generation_prompt=True)
        return self._encode_marked(Rendered(text, [])).input_ids.tolist()

    def _render_batches(self, conversations: Iterable[Sequence[Message]]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        characters = 0
        for messages in conversations:
            rendered = self._render(messages)
            batch.append(rendered)
            characters += len(rendered.text) if isinstance(rendered, Rendered) else 0
            if len(batch) == BATCH_RECORDS or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        if batch:
            yield batch

    def _render(self, messages: Sequence[Message]) -> Item:
        try:
            if self._quotes_special_tokens(messages):
                return self._encode_marked(self.template.render_learnt(self._mark_quoted(messages)))
            return self.template.render_learnt(messages)
        except TemplateError as error:
            return error

    def _finish(
        self, batch: list[Item], encodings: Future[list[Encoding]]
    ) -> Iterator[Document | TemplateError]:
        encoded = iter(encodings.result())
        for rendered in batch:
            yield self._label(rendered, next(encoded)) if isinstance(rendered, Rendered) else rendered

    def _label(self, rendered: Rendered, encoding: Encoding) -> Document:
        input_ids = np.frombuffer(array.array("i", encoding.ids), np.int32)  # twice as fast as np.array
        labels = np.full(len(input_ids), IGNORED_LABEL, np.int32)
        for span in rendered.learnt:
            start, stop = token_span(encoding, rendered.text, span)
            labels[start:stop] = input_ids[start:stop]
        return self._end(Document(input_ids, labels))

    def _end(self, document: Document) -> Document:
        """Where the template has no end-of-turn marker, the EOS token is learnt behind the last turn."""
        if self.template.end_of_turn or self.eos_id is None or not len(document):
            return document
        if document.labels[-1] in (IGNORED_LABEL, self.eos_id):
            return document
        eos = np.array([self.eos_id], np.int32)
        return Document(np.append(document.input_ids, eos), np.append(document.labels, eos))

    def _quotes_special_tokens(self, messages: Sequence[Message]) -> bool:
        text = "\n".join([str(value) for message in messages for value in message.values()])
        # Single characters are found much faster than an expression of many tokens.
        return any(start in text for start in self._special_starts) and bool(self._special.search(text))

    def _mark_quoted(self, value: Any) -> Any:
        """Wrap special tokens in the messages' texts in markers (transformers' `mark_control_tokens`)."""
        if isinstance(value, str):
            clean = value.replace(_QUOTE, "").replace(_UNQUOTE, "")
            return self._special.sub(f"{_QUOTE}\\g<0>{_UNQUOTE}", clean)
        if isinstance(value, Mapping):
            return {key: self._mark_quoted(item) for key, item in value.items()}
        return [self._mark_quoted(item) for item in value] if isinstance(value, list | tuple) else value

    def _encode_marked(self, rendered: Rendered) -> Document:
        """Encode piece by piece, marked special tokens as text (transformers' `encode_marked_chat`)."""
        ids: list[int] = []
        learnt: list[bool] = []
        position = 0

        def append(tokens: list[tuple[int, int]]) -> None:
            """(id, first character) of each token."""
            for token, at in tokens:
                ids.append(token)
                learnt.append(any(start <= at < stop for start, stop in rendered.learnt))

        for mark in self._marked.finditer(rendered.text):
            append(self._encode_piece(rendered.text[position : mark.start()], position))
            if mark[1]:
                append([(token, mark.start(1)) for token in self._encode_as_text(mark[1])])
            position = mark.end()
        append(self._encode_piece(rendered.text[position:], position))
        input_ids = np.array(ids, np.int32)
        return self._end(Document(input_ids, np.where(learnt, input_ids, np.int32(IGNORED_LABEL))))

    def _encode_piece(self, text: str, position: int) -> list[tuple[int, int]]:
        """(id, first character) of the tokens of a piece that lies at `position`.

        In the middle it is encoded behind a line break, which is taken off again, so that SentencePiece adds
        no blank.
        """
        if position and text:
            encoding = self.backend.encode("\n" + text, add_special_tokens=False)
            prefix = len(self._newline_ids)
            if encoding.ids[:prefix] == self._newline_ids:
                starts = [start + position - 1 for start, _ in encoding.offsets]
                return list(zip(encoding.ids, starts, strict=True))[prefix:]
        encoding = self.backend.encode(text, add_special_tokens=False)
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
        backend = self.backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]


def token_span(encoding: Encoding, text: str, span: Span) -> Span:
    """The tokens of the characters `span`. A token that begins in blanks before the span belongs to it (a
    word with its leading space); one that begins in other text doesn't."""
    start, stop = span
    first = _token_at(encoding, start, stop)
    if first is None:
        return 0, 0
    begin = encoding.token_to_chars(first)[0]
    if begin < start and not text[begin:start].isspace():
        while first < len(encoding) and encoding.token_to_chars(first)[0] < start:
            first += 1
    last = _token_at(encoding, stop, len(text))
    if last is None:
        last = len(encoding)
    elif encoding.token_to_chars(last)[0] < stop:
        last += 1
    return first, max(first, last)


def _token_at(encoding: Encoding, start: int, stop: int) -> int | None:
    """The first token at or behind character `start`, None where there is none before `stop`."""
    for position in range(start, stop):
        token = encoding.char_to_token(position)
        if token is not None:
            return int(token)
    return None
