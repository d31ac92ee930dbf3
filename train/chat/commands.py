"""What a typed line means: something said to the model, or a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Word = Literal["help", "reset", "system", "retry", "save", "quit"]
WORDS: tuple[Word, ...] = get_args(Word)
HELP = """\
/reset          forget what was said
/system TEXT    set the system message; without TEXT: have none
/retry          have the last question answered again
/save FILE      append the conversation to FILE, as a line that data.train takes
/quit           leave (also ^D)
/help           this list
A line that ends in a backslash goes on in the next. ^C stops an answer. // begins a text with a slash."""


class CommandError(Exception):
    """A command that there is not, or that lacks something: one line, for the user."""


@dataclass(frozen=True)
class Said:
    """For the model."""

    text: str


@dataclass(frozen=True)
class Command:
    word: Word
    argument: str = ""


def parse(line: str) -> Said | Command | None:
    """None for nothing but blanks. Raises CommandError."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Said(text[1:])
    if not text.startswith("/"):
        return Said(line.rstrip())
    word, _, argument = text[1:].partition(" ")
    argument = argument.strip()
    if word not in WORDS:
        raise CommandError(f"there is no /{word}; /help lists the commands, //{word} says it to the model")
    if word == "save" and not argument:
        raise CommandError("/save needs a file: /save talk.jsonl")
    if argument and word not in ("system", "save"):
        raise CommandError(f"/{word} takes nothing behind it")
    return Command(word, argument)  # type: ignore[arg-type]
