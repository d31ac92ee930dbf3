"""What was said so far, as the messages that the model is asked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from train.talk.engine import Message


class Conversation:
    """The turns with one model: questions, each with its answer but while that is being made."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._questions: list[str] = []
        self._answers: list[str] = []

    @property
    def messages(self) -> list[Message]:
        """Questions without a word of an answer (stopped at once) are left out: no training record has
        such."""
        said: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in zip(self._questions, self._answers, strict=False):
            if answer:
                said.append({"role": "user", "content": question})
                said.append({"role": "assistant", "content": answer})
        if len(self._questions) > len(self._answers):
            said.append({"role": "user", "content": self._questions[-1]})
        return said

    @property
    def has_answer(self) -> bool:
        return any(self._answers)

    def ask(self, text: str) -> list[Message]:
        """The messages of a question, the assistant's turn being next."""
        self._questions.append(text)
        return self.messages

    def answer(self, text: str) -> None:
        """Take the answer in; an empty one where none came."""
        self._answers.append(text)

    def take_back(self) -> str | None:
        """Forget the last question, and its answer if it has one; returns the question, None without one."""
        if not self._questions:
            return None
        question = self._questions.pop()
        del self._answers[len(self._questions) :]
        return question

    def reset(self) -> None:
        """Forget all but the system message."""
        self._questions, self._answers = [], []

    def record(self) -> dict[str, Any]:
        """In the format `messages` of training data."""
        return {"messages": self.messages}


def save(conversation: Conversation, file: Path) -> int:
    """Append the conversation to the file; returns how many it holds now. Raises OSError, and ValueError for
    a file of something else than a record a line."""
    line = json.dumps(conversation.record(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    count, last = 0, b"\n"
    with file.open("ab+") as lines:
        lines.seek(0)
        for count, last in enumerate(lines, 1):
            if count == 1 and not last.startswith(b"{"):
                raise ValueError("it holds something else than a record a line")
        lines.write(line if last.endswith(b"\n") else b"\n" + line)
    return count + 1
