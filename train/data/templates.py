"""Chat templates: conversations to text, and where in that text the words lie that are learnt.

The Jinja environment is transformers' own (`transformers.utils.chat_template_utils`, 5.23), restated here
because importing it costs seconds; a test holds both to the same output.

What is learnt of an assistant's turn: what a model must write after the generation prompt, up to and with the
end-of-turn token. Everything else (system, users, role headers, the line break after the turn) is not.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.utils

Message = Mapping[str, Any]  # {"role": …, "content": …}
Span = tuple[int, int]  # [start, stop) in characters
Anchor = tuple[int, int]  # (contents before it, characters of the frame before it)

_BLANKS = re.compile(r"\s*")
_BLANK = "\u2003"  # EM SPACE: stripped by str.strip, written by no template


@dataclass(frozen=True)
class Rendered:
    text: str
    learnt: list[Span]  # ascending, disjoint


class TemplateError(ValueError):
    """The template refuses the conversation, or is no valid template."""


class ChatTemplate:
    """A model's chat template.

    `variables` are the names it may use beside `messages` and `add_generation_prompt`: the special tokens
    (`bos_token`, `eos_token`, …). `special_tokens` are the texts of the tokenizer's special tokens: the
    end-of-turn marker is looked for among them. Raises TemplateError where the source can't be compiled.
    """

    def __init__(self, source: str, variables: Mapping[str, str], special_tokens: Sequence[str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template can't be compiled: {error}") from error
        self._variables = dict(variables)
        self._special_tokens = sorted(filter(None, special_tokens), key=len, reverse=True)
        self._skeleton = functools.lru_cache(maxsize=1024)(self._make_skeleton)

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The text that `apply_chat_template(tokenize=False)` gives. Raises TemplateError."""
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._variables,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise TemplateError(f"the chat template refuses the conversation: {error}") from error

    def render_learnt(self, messages: Sequence[Message]) -> Rendered:
        """The rendered conversation with the spans that are learnt. Raises TemplateError.

        Most templates only put contents into a frame: the frame of a sequence of roles is derived once, by
        rendering placeholders, and the spans of a conversation follow from the lengths of its contents. Where
        the real text differs from the filled frame, the turns are searched for one by one.
        """
        text = self.render(messages)
        if all(message.keys() == {"role", "content"} for message in messages):
            shape = tuple((message["role"], bool(message["content"])) for message in messages)
            skeleton = self._skeleton(shape)
            if skeleton is not None:
                spans = skeleton.spans(text, [message["content"] for message in messages])
                if spans is not None:
                    return Rendered(text, spans)
        return Rendered(text, self._search(text, messages))

    @functools.cached_property
    def end_of_turn(self) -> str:
        """What ends an assistant's turn (`<|im_end|>`), `""` where the template writes nothing there.

        It is what follows the words alike whether the conversation goes on or not, up to the first special
        token in it.
        """
        user, assistant = {"role": "user", "content": "U"}, {"role": "assistant", "content": _placeholder(0)}
        try:
            endings = [
                self.render(messages).partition(_placeholder(0))[2]
                for messages in ([user, assistant], [user, assistant, user])
            ]
        except TemplateError:
            return ""
        common = endings[0][: _common_length(*endings)]
        stops = [at + len(token) for token in self._special_tokens if (at := common.find(token)) >= 0]
        return common[: min(stops)] if stops else common.rstrip()

    def _make_skeleton(self, shape: tuple[tuple[str, bool], ...]) -> _Skeleton | None:
        """The frame of a sequence of (role, has content), None where placeholders can't be followed."""
        contents = [_placeholder(index) if filled else "" for index, (_, filled) in enumerate(shape)]
        # Blanks around a placeholder, of a kind that no template writes, tell whether contents are trimmed.
        messages = [
            {"role": role, "content": f"{_BLANK}{content}{_BLANK}" if content else ""}
            for (role, _), content in zip(shape, contents, strict=True)
        ]
        try:
            text = self.render(messages)
            learnt = self._search(text, messages)
        except TemplateError:
            return None
        frame, slots, rest = [], [], text
        for index, content in enumerate(contents):
            if not content:
                continue
            before, found, after = rest.partition(content)
            if not found or content in after:
                return None
            frame.append(before.removesuffix(_BLANK))
            slots.append(_Slot(index, before.endswith(_BLANK), after.startswith(_BLANK)))
            rest = after.removeprefix(_BLANK)
        frame.append(rest)
        return _Skeleton.build(frame, slots, text, learnt)

    def _search(self, text: str, messages: Sequence[Message]) -> list[Span]:
        """The spans of each assistant's turn, found in the text itself.

        A turn that the template left out has no span.
        """
        spans: list[Span] = []
        position = 0
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                span = self._find_turn(text, messages[:index], message.get("content"), position)
                if span is not None:
                    spans.append(span)
                    position = span[1]
        return spans

    def _find_turn(self, text: str, before: Sequence[Message], content: Any, position: int) -> Span | None:
        """A turn starts where the text leaves the generation prompt that the messages before it render to,
        and ends with the end-of-turn marker behind its words."""
        header_end = self._header_end(text, before)
        if header_end is not None and header_end >= position:
            words = self._find_words(text, content, header_end)
            stop = words[1] if words else self._next_end(text, header_end)
            return (header_end, stop) if stop > header_end else None
        return self._find_words(text, content, position)

    def _header_end(self, text: str, before: Sequence[Message]) -> int | None:
        """Where the header (`<|im_start|>assistant`) of the turn behind the messages `before` ends: as far as
        the generation prompt agrees with any turn (it may go on, as in `<think>`)."""
        try:
            prompt = self.render(before, generation_prompt=True)
            turn = self.render([*before, {"role": "assistant", "content": _placeholder(0)}])
        except TemplateError:
            return None
        header_end = _common_length(prompt, turn)
        return header_end if text.startswith(prompt[:header_end]) else None

    def _find_words(self, text: str, content: Any, position: int) -> Span | None:
        """The content from `position` on with the end of its turn: the content as it is, stripped, or
        without the reasoning before `</think>`."""
        if not isinstance(content, str):
            return None
        end = self.end_of_turn.lstrip()
        for words in dict.fromkeys((content, content.strip(), content.rpartition("</think>")[2].strip())):
            at = text.find(words, position)
            while at >= 0:
                stop = at + len(words)
                blanks = _BLANKS.match(text, stop).end() if end else stop
                # "think" also occurs in an empty `<think>` block: the turn must end behind the words.
                if text.startswith(end, blanks):
                    return at, blanks + len(end)
                at = text.find(words, at + 1)
        return None

    def _next_end(self, text: str, position: int) -> int:
        at = text.find(self.end_of_turn, position) if self.end_of_turn else -1
        return at + len(self.end_of_turn) if at >= 0 else position


@dataclass(frozen=True)
class _Slot:
    message: int
    keep_left: bool  # blanks at the content's left survive
    keep_right: bool

    def fill(self, content: str) -> str:
        content = content if self.keep_left else content.lstrip()
        return content if self.keep_right else content.rstrip()


@dataclass(frozen=True)
class _Skeleton:
    """`frame[0] slots[0] frame[1] … slots[-1] frame[-1]`. A learnt span is two anchors, which move with the
    lengths of the contents before them."""

    frame: list[str]
    slots: list[_Slot]
    learnt: list[tuple[Anchor, Anchor]]

    @classmethod
    def build(cls, frame: list[str], slots: list[_Slot], text: str, learnt: list[Span]) -> _Skeleton | None:
        """`text` is the rendered placeholders. None where a span starts or ends amid one."""
        anchors: dict[int, Anchor] = {}
        position = literal = 0
        for number, piece in enumerate(frame):
            # A frame's piece begins at its own first occurrence behind the placeholder (and its blank).
            if number > 0:
                slot = slots[number - 1]
                words = _placeholder(slot.message)
                position = text.index(words, position) + len(words) + slot.keep_right
            anchors |= {position + offset: (number, literal + offset) for offset in range(len(piece) + 1)}
            position, literal = position + len(piece), literal + len(piece)
        if not all(start in anchors and stop in anchors for start, stop in learnt):
            return None
        return cls(frame, slots, [(anchors[start], anchors[stop]) for start, stop in learnt])

    def spans(self, text: str, contents: list[str]) -> list[Span] | None:
        """The learnt spans of `text`, None if it is not this frame filled with `contents`."""
        filled = [slot.fill(contents[slot.message]) for slot in self.slots]
        pieces = [self.frame[0]]
        before = [0]  # characters of contents before the n-th literal
        for words, literal in zip(filled, self.frame[1:], strict=True):
            pieces += (words, literal)
            before.append(before[-1] + len(words))
        if "".join(pieces) != text:
            return None
        return [
            (before[slots] + literal, before[end_slots] + end_literal)
            for (slots, literal), (end_slots, end_literal) in self.learnt
        ]


def _placeholder(index: int) -> str:
    """Text that no conversation holds: private-use characters."""
    return f"\ue0f0{index}\ue0f1"


def _common_length(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next(index for index in range(limit) if left[index] != right[index])


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda pattern: datetime.now().strftime(pattern),
        "namespace": jinja2.utils.Namespace,
    }
    return environment


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` renders its body: spans are found for every template alike."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Any) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> Iterator[str]:
    raise jinja2.TemplateError(message)
