"""What a typed line means."""

from __future__ import annotations

import pytest

from train.chat.commands import HELP, WORDS, Command, CommandError, Said, parse


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("hello", Said("hello")),
        ("  two\nlines  ", Said("  two\nlines")),
        ("   ", None),
        ("//etc/passwd", Said("/etc/passwd")),
        ("/quit", Command("quit")),
        (" /reset ", Command("reset")),
        ("/system", Command("system")),
        ("/system  Be brief. ", Command("system", "Be brief.")),
        ("/save a b.jsonl", Command("save", "a b.jsonl")),
    ],
)
def test_meaning(line: str, meaning: Said | Command | None) -> None:
    assert parse(line) == meaning


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/nonsense", "there is no /nonsense; .* //nonsense says it to the model"),
        ("/save", "needs a file"),
        ("/quit now", "takes nothing"),
    ],
)
def test_mistakes(line: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        parse(line)


def test_help_tells_of_every_command() -> None:
    assert all(f"/{word}" in HELP for word in WORDS)
