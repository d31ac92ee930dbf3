"""A chat template in Go, as Ollama takes it, put together from the pieces that the model's own template puts
around texts.

The pieces are found by rendering, and the result is kept only if it writes every probed conversation exactly
as the template does. Ollama's side (template/template.go of ollama 0.13): `.Messages` with neighbours of one
role joined, `.System` all system messages joined, `{{ }}` as in Go's text/template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from train.data.skeleton import placeholder
from train.data.templates import ChatTemplate, Message, TemplateError

#: Texts of the probed conversations: system, three questions, two answers.
_S, _Q1, _A1, _Q2, _A2, _Q3 = map(placeholder, range(6))


@dataclass(frozen=True)
class Pieces:
    """What stands around the texts of a conversation in which questions and answers alternate. `system` is
    what stands before and behind a system text, up to the first question; None where the template has no
    place for one."""

    first: str  # up to the first question, without a system text
    system: tuple[str, str] | None
    question: str  # from an answer to the next question
    question_end: str
    answer: str  # what begins an answer that is given already
    prompt: str  # what begins the one that is asked for

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation that ends with a question, and the generation prompt."""
        system = [message["content"] for message in messages if message["role"] == "system"]
        text, begun = "", False
        for message in messages:
            if message["role"] == "user":
                if begun:
                    text += self.question
                elif system and self.system is not None:
                    text += self.system[0] + system[0] + self.system[1]
                else:
                    text += self.first
                begun = True
                text += message["content"] + self.question_end
            elif message["role"] == "assistant":
                text += self.answer + message["content"]
        return text + self.prompt

    def go(self, *, bos: str) -> str:
        """The template for Ollama, which puts `bos` (empty: nothing) at the start itself."""
        first = _go(self.first.removeprefix(bos))
        if self.system is not None:
            before, behind = self.system
            with_system = _go(before.removeprefix(bos)) + "{{ $.System }}" + _go(behind)
            first = "{{ if $.System }}" + with_system + "{{ else }}" + first + "{{ end }}"
        return "\n".join(
            (
                "{{- $begun := false }}",
                "{{- range $index, $_ := .Messages }}",
                "{{- $last := eq (len (slice $.Messages $index)) 1 }}",
                '{{- if eq .Role "user" }}',
                "{{- if $begun }}" + _go(self.question) + "{{ else }}" + first + "{{ end }}",
                "{{- $begun = true }}{{ .Content }}" + _go(self.question_end),
                "{{- if $last }}" + _go(self.prompt) + "{{ end }}",
                '{{- else if eq .Role "assistant" }}' + _go(self.answer) + "{{ .Content }}",
                "{{- end }}",
                "{{- end }}",
            )
        )


def find_pieces(template: ChatTemplate) -> Pieces | None:
    """None where the template does more than put pieces around texts."""
    try:
        pieces = _split(template)
    except (TemplateError, ValueError):
        return None
    return pieces if _writes_the_same(pieces, template) else None


def _split(template: ChatTemplate) -> Pieces:
    """Raises ValueError where a text is missing, TemplateError where a conversation is refused."""
    whole = template.render([_user(_Q1), _assistant(_A1), _user(_Q2)], generation_prompt=True)
    first, rest = _cut(whole, _Q1)
    between, rest = _cut(rest, _A1)
    question, end = _cut(rest, _Q2)
    # Where the header of an answer begins: with what the generation prompt adds.
    asked = template.render([_user(_Q1)])
    prompt = template.render([_user(_Q1)], generation_prompt=True).removeprefix(asked)
    question_end = end.removesuffix(prompt)
    return Pieces(
        first=first,
        system=_system(template),
        question=question,
        question_end=question_end,
        answer=between.removeprefix(question_end),
        prompt=prompt,
    )


def _system(template: ChatTemplate) -> tuple[str, str] | None:
    try:
        text = template.render([_system_message(_S), _user(_Q1)])
        before, rest = _cut(text, _S)
        return before, _cut(rest, _Q1)[0]
    except (TemplateError, ValueError):
        return None


def _writes_the_same(pieces: Pieces, template: ChatTemplate) -> bool:
    turns = [_user(_Q1), _assistant(_A1), _user(_Q2), _assistant(_A2), _user(_Q3)]
    probes = [turns[:1], turns[:3], turns]
    if pieces.system is not None:
        probes += [[_system_message(_S), *probe] for probe in probes]
    try:
        return all(pieces.render(probe) == template.render(probe, generation_prompt=True) for probe in probes)
    except TemplateError:
        return False


def _cut(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise ValueError(f"{mark!r} occurs {text.count(mark)} times")
    before, _, behind = text.partition(mark)
    return before, behind


def _go(piece: str) -> str:
    """A literal as an action, so that blanks at its ends stay (JSON's escapes are Go's)."""
    return "{{ " + json.dumps(piece, ensure_ascii=False) + " }}" if piece else ""


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _system_message(content: str) -> Message:
    return {"role": "system", "content": content}
