"""Chat templates: conversations to text, and where in that text the assistant's turns lie.

A turn is what a model must write after the generation prompt, up to and with the end-of-turn token.
Everything else (system, users, role headers, the line break after the turn) is not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from train.data.jinja_environment import environment
from train.data.skeleton import Skeleton, Turn, is_wrong_to_lose, lost_texts, padded, placeholder
from train.data.texts import Message, Shape, Tool, fill_shape, kinds_and_texts, shape_of

_BLANKS = re.compile(r"\s*")
_SHAPES = 4096  # remembered
Tools = Sequence[Tool] | None


@dataclass(frozen=True)
class Rendered:
    text: str
    turns: list[Turn]  # of the assistant, ascending, disjoint
    lost: tuple[str, ...] = ()  # kinds of texts that the template left out, and may


class TemplateError(ValueError):
    """The template refuses the conversation, or is no valid template. `kind`: of which records."""

    kind = "refused by the chat template"


class LostTextError(TemplateError):
    """The template has no place for something without which the record would teach something else."""

    def __init__(self, what: str) -> None:
        self.kind = f"{what} left out by the chat template"
        super().__init__(
            f"the chat template leaves out its {what}: take a template that has a place for it (template: "
            "chatml, or one of your own as template.jinja), or remove it from the records"
        )


class ChatTemplate:
    """A model's chat template.

    `variables` are the names it may use beside `messages`, `tools` and `add_generation_prompt`: the special
    tokens (`bos_token`, `eos_token`, …). `special_tokens` are the texts of the tokenizer's special tokens:
    the end-of-turn marker is looked for among them. Raises TemplateError where the source can't be compiled.
    """

    def __init__(self, source: str, variables: Mapping[str, str], special_tokens: Sequence[str]) -> None:
        try:
            self._template = environment().from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template can't be compiled: {error}") from error
        self._variables = dict(variables)
        self._special_tokens = sorted(filter(None, special_tokens), key=len, reverse=True)
        self._skeleton = functools.lru_cache(maxsize=_SHAPES)(self._make_skeleton)

    def render(
        self, messages: Sequence[Message], tools: Tools = None, *, generation_prompt: bool = False
    ) -> str:
        """The text that `apply_chat_template(tokenize=False)` gives. Raises TemplateError."""
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._variables,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise TemplateError(f"the chat template refuses the conversation: {error}") from error

    def render_turns(self, messages: Sequence[Message], tools: Tools = None) -> Rendered:
        """The rendered conversation with the assistant's turns in it. Raises TemplateError.

        Most templates only put texts into a frame: the frame of a record's shape is derived once, by
        rendering placeholders, and the turns follow from the lengths of its texts. Where the real text
        differs from the filled frame, the turns are searched for one by one.
        """
        text = self.render(messages, tools)
        shape, texts = shape_of(messages, tools)
        skeleton = self._skeleton(shape)
        turns = skeleton.find_turns(text, texts) if skeleton else None
        if skeleton is not None and turns is not None:
            lost = skeleton.lost
        else:
            turns = self._search(text, messages, tools)
            lost = lost_texts(text, kinds_and_texts(messages, tools))
        if lost and (wrong := next(filter(is_wrong_to_lose, lost), None)):
            raise LostTextError(wrong)
        return Rendered(text, turns, lost)

    @functools.cached_property
    def end_of_turn(self) -> str:
        """What ends an assistant's turn (`<|im_end|>`), `""` where the template writes nothing there.

        It is what follows the words alike whether the conversation goes on or not, up to the first special
        token in it.
        """
        user, assistant = {"role": "user", "content": "U"}, {"role": "assistant", "content": placeholder(0)}
        try:
            endings = [
                self.render(messages).partition(placeholder(0))[2]
                for messages in ([user, assistant], [user, assistant, user])
            ]
        except TemplateError:
            return ""
        common = endings[0][: _common_length(*endings)]
        stops = [at + len(token) for token in self._special_tokens if (at := common.find(token)) >= 0]
        return common[: min(stops)] if stops else common.rstrip()

    def _make_skeleton(self, shape: Shape) -> Skeleton | None:
        messages, tools, kinds = fill_shape(shape, padded)
        try:
            text = self.render(messages, tools)
            turns = self._search(text, messages, tools)
        except TemplateError:
            return None
        return Skeleton.build(text, kinds, turns)

    def _search(self, text: str, messages: Sequence[Message], tools: Tools = None) -> list[Turn]:
        """Each assistant's turn, found in the text itself. One that the template left out has none."""
        turns: list[Turn] = []
        position = 0
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                span = self._find_turn(text, messages[: index + 1], tools, position)
                if span is not None:
                    turns.append(Turn(index, *span))
                    position = span[1]
        return turns

    def _find_turn(
        self, text: str, messages: Sequence[Message], tools: Tools, position: int
    ) -> tuple[int, int] | None:
        """The last message's turn: it starts where the text leaves the generation prompt that the messages
        before it render to, and ends with the end-of-turn marker behind its words."""
        content = messages[-1].get("content")
        header_end = self._header_end(text, messages[:-1], tools)
        if header_end is None or header_end < position:
            return self._find_words(text, content, position)
        if messages[-1].get("tool_calls"):
            stop = self._end_of_calls(text, messages, tools, header_end)
        else:
            words = self._find_words(text, content, header_end)
            stop = words[1] if words else self._next_end(text, header_end)
        return (header_end, stop) if stop > header_end else None

    def _header_end(self, text: str, before: Sequence[Message], tools: Tools) -> int | None:
        """Where the header (`<|im_start|>assistant`) of the turn behind the messages `before` ends: as far as
        the generation prompt agrees with any turn (it may go on, as in `<think>`)."""
        try:
            prompt = self.render(before, tools, generation_prompt=True)
            turn = self.render([*before, {"role": "assistant", "content": placeholder(0)}], tools)
        except TemplateError:
            return None
        header_end = _common_length(prompt, turn)
        return header_end if text.startswith(prompt[:header_end]) else None

    def _end_of_calls(self, text: str, messages: Sequence[Message], tools: Tools, start: int) -> int:
        """Calls are written in the template's own way: the turn ends as the conversation up to it does."""
        try:
            ended = self.render(messages, tools)
        except TemplateError:
            return self._next_end(text, start)
        ended = ended[: _common_length(ended, text)]
        end = self.end_of_turn.lstrip()
        if not end:
            return len(ended)
        at = ended.rfind(end, start)
        return at + len(end) if at >= 0 else self._next_end(text, start)

    def _find_words(self, text: str, content: Any, position: int) -> tuple[int, int] | None:
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


def _common_length(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next(index for index in range(limit) if left[index] != right[index])
