"""Test questions as token ids, and in which batches they are asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.contract import IGNORED_LABEL
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer, Document
from train.stage import StageUserError

Message = dict[str, Any]
Messages = Sequence[Message]


@dataclass(frozen=True)
class Question:
    """What was said before an assistant's turn, and that turn; with the tools that it may call."""

    prompt: Messages
    answer: Message
    tools: list[Any] | None = None

    @property
    def reference(self) -> str:
        """What an answer is compared with: the turn's words, or the calls of one without words, as JSON."""
        calls = [call["function"] for call in self.answer.get("tool_calls") or ()]
        return self.answer["content"] or "\n".join(json.dumps(call, ensure_ascii=False) for call in calls)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Question | None:
        """By the last turn of the assistant; None where there is none, or nothing before it."""
        messages = [
            {name: value for name, value in message.items() if name != "train"}
            for message in record.get("messages", ())
        ]
        at = next((at for at in reversed(range(len(messages))) if messages[at]["role"] == "assistant"), 0)
        return cls(messages[:at], messages[at], record.get("tools")) if at else None


@dataclass(frozen=True)
class Encoded:
    """A question's token ids: what the model is asked with, and the whole turn with the reference, of which
    `learnt` marks the reference's tokens."""

    prompt: list[int]
    whole: list[int]
    learnt: list[bool]


def encode_question(tokenizer: ChatTokenizer, question: Question) -> Encoded:
    """Raises StageUserError for a question that the chat template refuses."""
    prompt = encode_prompt(tokenizer, question)
    record: dict[str, Any] = {"messages": [*question.prompt, question.answer]}
    if question.tools:
        record["tools"] = question.tools
    (document,) = tokenizer.encode([record])
    if not isinstance(document, Document):
        raise refused(question, document)
    whole = document.input_ids.tolist()
    same = next((at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    learnt = [at >= same and label != IGNORED_LABEL for at, label in enumerate(document.labels.tolist())]
    return Encoded(prompt, whole, learnt)


def encode_prompt(tokenizer: ChatTokenizer, question: Question) -> list[int]:
    """Raises StageUserError for a question that the chat template refuses."""
    try:
        return tokenizer.encode_prompt(question.prompt, question.tools)
    except TemplateError as error:
        raise refused(question, error) from error


def refused(question: Question, error: TemplateError) -> StageUserError:
    return StageUserError(
        f"test question {question.prompt[-1]['content'][:60]!r}: {error}", "mend or remove the record"
    )


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in groups of at most `batch_size`, from the longest to the shortest."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
