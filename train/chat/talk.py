"""The conversation itself: lines in, answers out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from train.chat.commands import HELP, Command, CommandError, Said, parse
from train.chat.conversation import Conversation, save
from train.chat.hush import quietly
from train.chat.screen import Answer, Screen
from train.talk.engine import Engine, Message, PromptError, Sampling


class Speaker(NamedTuple):
    """A model and what was said with it."""

    name: str
    engine: Engine
    conversation: Conversation


class Talk:
    """One conversation with each of one or two models, which are asked the same. The last is the one that is
    saved. `strict`: the first mistake is raised, for scripts."""

    def __init__(
        self, speakers: Sequence[Speaker], sampling: Sampling, screen: Screen, *, strict: bool = False
    ) -> None:
        self._speakers, self._sampling, self._screen = speakers, sampling, screen
        self._strict = strict
        self._asked = 0

    def run(self, lines: Iterable[str]) -> None:
        """Until the lines end, or /quit. Where `strict`, raises CommandError and PromptError."""
        for line in lines:
            try:
                said = parse(line)
                if isinstance(said, Said):
                    self._ask(said.text)
                elif said is not None and not self._obey(said):
                    return
            except (CommandError, PromptError) as error:
                if self._strict:
                    raise
                self._screen.note(str(error))

    def _ask(self, text: str) -> None:
        prompts = [speaker.conversation.ask(text) for speaker in self._speakers]
        try:
            answers = self._answers(prompts)
        except BaseException:
            for speaker in self._speakers:
                speaker.conversation.take_back()
            raise
        for speaker, answer in zip(self._speakers, answers, strict=True):
            speaker.conversation.answer(answer.text)

    def _answers(self, prompts: Sequence[list[Message]]) -> list[Answer]:
        names = [speaker.name for speaker in self._speakers]
        sampling = self._next_sampling()
        streams = [
            quietly(speaker.engine.stream(speaker.engine.encode_chat(messages), sampling))
            for speaker, messages in zip(self._speakers, prompts, strict=True)
        ]
        try:
            return self._screen.show(names, streams)
        finally:
            for stream in streams:
                stream.close()

    def _next_sampling(self) -> Sampling:
        """Another seed for each answer, in an order that the first one sets."""
        if (seed := self._sampling.seed) is None:
            return self._sampling
        sampling = dataclasses.replace(self._sampling, seed=seed + self._asked)
        self._asked += 1
        return sampling

    def _obey(self, command: Command) -> bool:
        """False where the talk is over."""
        note, conversations = self._screen.note, [speaker.conversation for speaker in self._speakers]
        match command.word:
            case "quit":
                return False
            case "help":
                note(HELP)
            case "reset":
                for conversation in conversations:
                    conversation.reset()
                note("the conversation starts anew")
            case "system":
                for conversation in conversations:
                    conversation.system = command.argument or None
                note("the system message is set" if command.argument else "there is no system message")
            case "retry":
                self._retry()
            case "save":
                self._save(Path(command.argument))
        return True

    def _retry(self) -> None:
        questions = [speaker.conversation.take_back() for speaker in self._speakers]
        if (question := questions[0]) is None:
            raise CommandError("there is no question to answer again")
        self._ask(question)

    def _save(self, file: Path) -> None:
        conversation = self._speakers[-1].conversation
        if not conversation.has_answer:
            raise CommandError("there is no answer to save")
        try:
            count = save(conversation, file.expanduser())
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: nobody has that ~home
            cause = getattr(error, "strerror", None) or error
            raise CommandError(f"{file} can't be written: {cause}") from error
        self._screen.note(f"{file}: {count} conversation{'s' if count > 1 else ''}")
