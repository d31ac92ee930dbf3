"""Test questions as token ids, and in which batches they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.contract import IGNORED_LABEL
from train.data.templates import TemplateError
from train.data.tokenize import ChatTokenizer, Document
from train.stage import StageUserError

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Question:
    """What was said before an assistant's turn, and that turn."""

    prompt: Messages
    reference: str


@dataclass(frozen=True)
class Encoded:
    """A question's token ids: what the model is asked with, and the whole turn with the reference, of which
    `learnt` marks the reference's tokens."""

    prompt: list[int]
    whole: list[int]
    learnt: list[bool]


def encode_question(tokenizer: ChatTokenizer, question: Question) -> Encoded:
    """Raises StageUserError for a question that the chat template refuses."""
    prompt = encode_prompt(tokenizer, question.prompt)
    turn = [*question.prompt, {"role": "assistant", "content": question.reference}]
    (document,) = tokenizer.encode([{"messages": turn}])
    if not isinstance(document, Document):
        raise refused(question.prompt, document)
    whole = document.input_ids.tolist()
    same = next((at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    learnt = [at >= same and label != IGNORED_LABEL for at, label in enumerate(document.labels.tolist())]
    return Encoded(prompt, whole, learnt)


def encode_prompt(tokenizer: ChatTokenizer, prompt: Messages) -> list[int]:
    """Raises StageUserError for a question that the chat template refuses."""
    try:
        return tokenizer.encode_prompt(prompt)
    except TemplateError as error:
        raise refused(prompt, error) from error


def refused(prompt: Messages, error: TemplateError) -> StageUserError:
    return StageUserError(
        f"test question {prompt[-1]['content'][:60]!r}: {error}", "mend or remove the record"
    )


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in groups of at most `batch_size`, from the longest to the shortest."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
