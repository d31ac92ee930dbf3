"""What was said so far, as the messages that the model is asked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from train.talk.engine import Message


class Conversation:
    """The turns with one model. It ends with the assistant's turn, but while that is being made."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self._turns

    @property
    def has_answer(self) -> bool:
        return bool(self._turns)

    def ask(self, text: str) -> list[Message]:
        """The messages of a question, the assistant's turn being next."""
        self._turns.append({"role": "user", "content": text})
        return self.messages

    def answer(self, text: str) -> None:
        """Take the answer in. Of one without a word (stopped, or refused) the question goes, too."""
        if text:
            self._turns.append({"role": "assistant", "content": text})
        else:
            del self._turns[-1:]

    def take_back(self) -> str:
        """Forget the last question and its answer; returns the question."""
        question, _ = self._turns[-2:]
        del self._turns[-2:]
        return str(question["content"])

    def reset(self) -> None:
        self._turns = []

    def record(self) -> dict[str, Any]:
        """In the format `messages` of training data."""
        return {"messages": self.messages}


def save(conversation: Conversation, file: Path) -> int:
    """Append the conversation to the file; returns how many it holds now. Raises OSError."""
    with file.expanduser().open("a+", encoding="utf-8") as lines:
        lines.seek(0)
        text = lines.read()
        line = json.dumps(conversation.record(), ensure_ascii=False)
        lines.write(("\n" if text and not text.endswith("\n") else "") + line + "\n")
        return len(text.splitlines()) + 1
