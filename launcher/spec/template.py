"""Section `template` of a job: how conversations are written as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from launcher.spec.section import Conflict, Section

TemplateName = Literal[
    "chatml",
    "qwen",
    "llama2",
    "llama3",
    "mistral",
    "vicuna",
    "alpaca",
    "chatglm",
    "bloom",
    "gemma",
    "phi",
    "deepseek",
]


class Turn(Section):
    """What stands before and behind the words of a role."""

    prefix: str = Field("", description="Text before the words.")
    suffix: str = Field("", description="Text behind the words.")


class Template(Section):
    """The chat template: by name, as Jinja, or in pieces. Left out: the tokenizer's own. `template: chatml`
    is short for `template: {name: chatml}`."""

    name: TemplateName | None = Field(None, description="A template that many models share.")
    jinja: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A Jinja template, as `chat_template.jinja` of a model holds it."
    )
    system: Turn | None = Field(None, description="A template in pieces: the system message.")
    user: Turn | None = Field(None, description="The same of a user's turn.")
    assistant: Turn | None = Field(None, description="The same of an assistant's turn.")
    observation: Turn | None = Field(None, description="The same of a tool's answer.")
    default_system: str | None = Field(
        None, description="System message of conversations that have none. Left out: the template's own."
    )
    stop_words: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="Texts that end an answer; each becomes one token of the vocabulary."
    )
    replace_eos: bool = Field(False, description="The first stop word becomes the tokenizer's EOS token.")

    def conflicts(self) -> Iterator[Conflict]:
        pieces = self.given("system", "user", "assistant", "observation")
        ways = [*self.given("name", "jinja"), *pieces[:1]]
        if len(ways) > 1:
            yield Conflict(
                tuple(ways), f"a template is given once, found {' and '.join(ways)}", "keep one of them"
            )
        if pieces and not {"user", "assistant"} <= set(pieces):
            yield Conflict(
                tuple(pieces), "a template in pieces has at least user and assistant", "write both"
            )
        for index, word in enumerate(self.stop_words):
            if word in self.stop_words[:index]:
                yield Conflict((f"stop_words.{index}",), f"{word} is named twice", "remove one")
        if pieces and self.default_system is not None and self.system is None:
            yield Conflict(
                ("default_system",),
                "the template's pieces have no place for a system message",
                "write system, with its prefix and suffix",
            )
        if self.user and self.assistant and not (self.user.suffix or self.assistant.prefix):
            yield Conflict(
                ("assistant", "user"),
                "nothing stands between a question and its answer",
                "write user.suffix or assistant.prefix",
            )
        if self.replace_eos and not self.stop_words:
            yield Conflict(("replace_eos", "stop_words"), "there is no stop word", "name one in stop_words")
