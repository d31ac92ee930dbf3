"""Records to token ids and labels, by the `tokenizers` library in batches.

A conversation's tokens are those that `apply_chat_template(tokenize=True, sanitize_control_tokens=True)`
gives (none are added beside those of the template, so a BOS that the template writes is the only one). A
text's are those that the tokenizer makes of it, with the BOS and EOS that it adds itself, and EOS at the end
in any case.
"""

from __future__ import annotations

import array
import functools
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from artifacts.contract import IGNORED_LABEL, TrainOn
from train.data.quoted import QuotedTokens
from train.data.records import Record
from train.data.templates import ChatTemplate, Rendered, TemplateError, Tools
from train.data.texts import Message
from train.stage import StageUserError

# A batch is handed to the library at once, which shares it among the cores: small ones keep them waiting for
# each other (a tenth more CPU time at a quarter of this). An encoding takes some 100 bytes a token until its
# ids are copied.
BATCH_RECORDS = 4096
BATCH_CHARACTERS = 1024 * 1024

Span = tuple[int, int]  # [start, stop) in characters


@dataclass(frozen=True)
class Document:
    """One record. int32 arrays of one length; `labels` are ids where learnt, else IGNORED_LABEL."""

    input_ids: np.ndarray  # (tokens,)
    labels: np.ndarray  # (tokens,)
    is_text: bool = False  # for pre-training: may be cut anywhere into documents of their own
    lost: tuple[str, ...] = ()  # kinds of texts of the record that the template left out

    def __len__(self) -> int:
        return len(self.input_ids)

    @functools.cached_property
    def supervised_tokens(self) -> int:
        return int(np.count_nonzero(self.labels != IGNORED_LABEL))


@dataclass(frozen=True)
class _Item:
    """A record as text, to be encoded. `learnt`: ascending, disjoint."""

    text: str
    learnt: list[Span]
    is_text: bool = False
    lost: tuple[str, ...] = ()


#: A record on its way: to be encoded, encoded already (it quotes special tokens, rare), or refused.
_OnItsWay = _Item | Document | TemplateError


class ChatTokenizer:
    """A tokenizer with its chat template.

    `special_tokens` maps names (`eos_token`) to texts. `train.data.loading` makes one from a model folder.
    `train_on`: what is learnt of a conversation: each of the assistant's turns, the last message alone, or
    everything; in any case but those turns with `train: false`. Without a template only texts can be
    encoded: a conversation raises StageUserError.
    """

    def __init__(
        self,
        backend: Tokenizer,
        template: str | None,
        special_tokens: Mapping[str, str],
        *,
        train_on: TrainOn = "assistant",
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.train_on = train_on
        self.special_tokens = dict(special_tokens)
        special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        self._has_template = template is not None
        template = template or ""
        self.template = ChatTemplate(template, special_tokens, special)
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self.template_sha256 = hashlib.sha256(template.encode()).hexdigest()
        self.eos_id = backend.token_to_id(special_tokens.get("eos_token", ""))
        self._quoted = QuotedTokens(backend)
        self._around = _added_around(backend)

    def encode(self, records: Iterable[Record | Document]) -> Iterator[Document | TemplateError]:
        """One document per record, in order; the error where the template refuses it. Documents among the
        records pass as they are.

        The library encodes a batch on all cores (without the interpreter's lock) while the next is rendered.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead: deque[tuple[list[_OnItsWay], Future[list[Encoding]]]] = deque()
            for batch in self._render_batches(records):
                texts = [item.text for item in batch if isinstance(item, _Item)]
                ahead.append((batch, pool.submit(self.backend.encode_batch, texts, add_special_tokens=False)))
                if len(ahead) == 2:
                    yield from self._finish(*ahead.popleft())
            while ahead:
                yield from self._finish(*ahead.popleft())

    def encode_prompt(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """The token ids that a model is asked with: the messages and the generation prompt."""
        self._require_template()
        text = self.template.render(
            self._quoted.mark(messages), self._quoted.mark(tools), generation_prompt=True
        )
        return self._encode_marked(_Item(text, [])).input_ids.tolist()

    def _render_batches(self, records: Iterable[Record | Document]) -> Iterator[list[_OnItsWay]]:
        batch: list[_OnItsWay] = []
        characters = 0
        for record in records:
            item = record if isinstance(record, Document) else self._render(record)
            batch.append(item)
            characters += len(item.text) if isinstance(item, _Item) else 0
            if len(batch) == BATCH_RECORDS or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        if batch:
            yield batch

    def _render(self, record: Record) -> _OnItsWay:
        quotes = self._quoted.occur_in(_joined(record))
        if quotes:
            record = self._quoted.mark(record)
        if "text" in record:
            item = _Item(record["text"], [(0, len(record["text"]))], is_text=True)
        else:
            try:
                item = self._render_conversation(record["messages"], record.get("tools") or None)
            except TemplateError as error:
                return error
        return self._encode_marked(item) if quotes else item

    def _require_template(self) -> None:
        if not self._has_template:
            raise StageUserError(
                "the tokenizer has no chat template, and the data hold conversations",
                "name one in the job (template: chatml, …), or use an instruction-tuned model",
            )

    def _render_conversation(self, messages: Sequence[Message], tools: Tools) -> _Item:
        self._require_template()
        skipped = {index for index, message in enumerate(messages) if message.get("train") is False}
        if any("train" in message for message in messages):
            messages = [
                {key: value for key, value in message.items() if key != "train"} for message in messages
            ]
        rendered = self.template.render_turns(messages, tools)
        return _Item(rendered.text, self._learnt(rendered, len(messages) - 1, skipped), lost=rendered.lost)

    def _learnt(self, rendered: Rendered, last: int, skipped: set[int]) -> list[Span]:
        turns = [(turn.start, turn.stop) for turn in rendered.turns if turn.message not in skipped]
        if self.train_on == "assistant":
            return turns
        if self.train_on == "last":
            return [
                (turn.start, turn.stop)
                for turn in rendered.turns[-1:]
                if turn.message == last and turn.message not in skipped
            ]
        unlearnt = [(turn.start, turn.stop) for turn in rendered.turns if turn.message in skipped]
        bounds = [0, *(bound for span in unlearnt for bound in span), len(rendered.text)]
        return list(zip(bounds[::2], bounds[1::2], strict=True))

    def _finish(
        self, batch: list[_OnItsWay], encodings: Future[list[Encoding]]
    ) -> Iterator[Document | TemplateError]:
        encoded = iter(encodings.result())
        for item in batch:
            yield self._label(item, next(encoded)) if isinstance(item, _Item) else item

    def _label(self, item: _Item, encoding: Encoding) -> Document:
        input_ids = np.frombuffer(array.array("i", encoding.ids), np.int32)  # twice as fast as np.array
        if item.is_text:
            return self._end_text(input_ids)
        labels = np.full(len(input_ids), IGNORED_LABEL, np.int32)
        for span in item.learnt:
            start, stop = token_span(encoding, item.text, span)
            labels[start:stop] = input_ids[start:stop]
        return self._end(Document(input_ids, labels, lost=item.lost))

    def _encode_marked(self, item: _Item) -> Document:
        placed = list(self._quoted.encode(item.text))
        input_ids = np.array([token for token, _ in placed], np.int32)
        if item.is_text:
            return self._end_text(input_ids)
        learnt = np.zeros(len(placed), bool)
        for at, (_, position) in enumerate(placed):
            learnt[at] = any(start <= position < stop for start, stop in item.learnt)
        labels = np.where(learnt, input_ids, np.int32(IGNORED_LABEL))
        return self._end(Document(input_ids, labels, lost=item.lost))

    def _end(self, document: Document) -> Document:
        """Where the template has no end-of-turn marker, the EOS token is learnt behind the last turn."""
        if self.template.end_of_turn or self.eos_id is None or not len(document):
            return document
        if document.labels[-1] in (IGNORED_LABEL, self.eos_id):
            return document
        eos = np.array([self.eos_id], np.int32)
        return Document(
            np.append(document.input_ids, eos), np.append(document.labels, eos), lost=document.lost
        )

    def _end_text(self, input_ids: np.ndarray) -> Document:
        before, after = self._around
        if self.eos_id is not None and after[-1:] != [self.eos_id]:
            after = [*after, self.eos_id]
        ids = np.concatenate([before, input_ids, after]).astype(np.int32)
        return Document(ids, ids, is_text=True)


def _added_around(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer adds before and behind a text of its own accord."""
    inner = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    at = next(
        (at for at in range(len(whole) - len(inner) + 1) if whole[at : at + len(inner)] == inner),
        len(whole),
    )
    return whole[:at], whole[at + len(inner) :]


def _joined(record: Record) -> str:
    """All texts of a record, a line each; of a plain conversation in a fraction of the time."""
    if record.keys() == {"messages"}:
        try:
            return "\n".join([value for message in record["messages"] for value in message.values()])
        except TypeError:  # more than texts
            pass
    return "\n".join(_all_texts(record))


def _all_texts(value: Any) -> Iterator[str]:
    """Each string within a record, dict keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _all_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _all_texts(item)


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
    # Tokens of nothing but blanks, where offsets are trimmed of blanks: no character, at their end.
    while first > 0 and encoding.token_to_chars(first - 1)[0] > start:
        first -= 1
    while last > first and encoding.token_to_chars(last - 1)[0] > stop:
        last -= 1
    return first, max(first, last)


def _token_at(encoding: Encoding, start: int, stop: int) -> int | None:
    """The first token at or behind character `start`, None where there is none before `stop`."""
    for position in range(start, stop):
        token = encoding.char_to_token(position)
        if token is not None:
            return int(token)
    return None
