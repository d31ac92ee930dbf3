"""Formats of a question and an answer: `alpaca`, `prompt_response`, `dialogue`, `input_target`, `jfleg`.

`alpaca` is Stanford Alpaca's with the columns that LLaMA-Factory added; `history` is its and ChatGLM's list
of pairs [question, answer].
"""

from __future__ import annotations

from artifacts.contract import Reading
from artifacts.formats.base import Lost, Message, Record, RecordError, describe, optional_text, text
from artifacts.formats.columns import Columns
from artifacts.formats.messages import conversation


def read_pair(record: Record, columns: Columns, reading: Reading, lost: Lost) -> Record:
    """One question and its answer, after the history. Raises RecordError."""
    answer = text(record[columns.response], columns.response)
    return _conversation(record, columns, reading, answer, lost)


def read_jfleg(record: Record, columns: Columns, reading: Reading, lost: Lost) -> list[Record]:
    """A record for each correction that is not empty. Raises RecordError."""
    name = columns.response
    corrections = record[name]
    if not isinstance(corrections, list):
        raise RecordError(f"{name} is {describe(corrections)}, not a list")
    answers = [answer for answer in corrections if not (isinstance(answer, str) and not answer.strip())]
    if not answers:
        raise RecordError(f"{name} holds no correction that is not empty")
    lost["empty corrections"] += len(corrections) - len(answers)
    return [
        _conversation(record, columns, reading, text(answer, f"{name}[{index}]"), lost)
        for index, answer in enumerate(answers)
    ]


def _conversation(record: Record, columns: Columns, reading: Reading, answer: str, lost: Lost) -> Record:
    question = text(record[columns.prompt], columns.prompt)
    addition = optional_text(record, columns.query)
    messages = [
        *_history(record, columns.history),
        {
            "role": "user",
            "content": reading.instruction + (f"{question}\n{addition}" if addition else question),
        },
        {"role": "assistant", "content": answer},
    ]
    if system := record.get(columns.system):
        text(system, columns.system)
    return conversation(messages, record, columns, lost)


def _history(record: Record, name: str) -> list[Message]:
    history = record.get(name) or []
    if not isinstance(history, list):
        raise RecordError(f"{name} is {describe(history)}, not a list of pairs [question, answer]")
    messages: list[Message] = []
    for position, turn in enumerate(history, 1):
        if not (isinstance(turn, list) and len(turn) == 2):
            raise RecordError(f"{name} {position} is not a pair [question, answer] but {describe(turn)}")
        messages += (
            {"role": "user", "content": text(turn[0], f"{name} {position}: question")},
            {"role": "assistant", "content": text(turn[1], f"{name} {position}: answer")},
        )
    return messages
