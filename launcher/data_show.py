"""`slipway data show FILE`: records as tokens, those that are learnt told from the rest.

A process of `train` makes them, so that nothing here imports a tokenizer. `render` is the text for people.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.contract import EXIT_USER_ERROR, IGNORED_LABEL
from artifacts.terminal import harmless
from launcher.backends.processes import environment
from launcher.errors import Problem, RunFailed, UserError

# SGR codes of a terminal: (even tokens, odd tokens), so that neighbours can be told apart.
_LEARNT = ("30;42", "30;102")
_OTHER = ("0", "2")
_RESET = "\x1b[0m"
#: Where there are no colours, around what is learnt.
_OPEN, _CLOSE = "⟦", "⟧"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One record. `tokens`: the text that each adds; "" where it takes several to make a character."""

    segments: list[dict[str, Any]]  # {"text", "learnt"}
    tokens: list[str]
    input_ids: list[int]
    labels: list[int]

    def to_json(self) -> str:
        values = {"segments": self.segments, "input_ids": self.input_ids, "labels": self.labels}
        return json.dumps(values, ensure_ascii=False)


def show(
    path: Path, *, tokenizer: Path, template: str | None, format: str, train_on: str, count: int
) -> list[Shown]:
    """The first `count` records. Raises UserError for a bad file, record, template or tokenizer."""
    command = [sys.executable, "-P", "-m", "train.data.show", str(path), f"--tokenizer={tokenizer}"]
    command += [f"--format={format}", f"--train-on={train_on}", f"-n{count}"]
    command += [f"--template={template}"] if template else []
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    messages = done.stderr.strip()
    if done.returncode == EXIT_USER_ERROR:
        why = messages.splitlines()[-1] if messages else "see above"
        raise UserError(Problem(where="", what=str(path), why=why))
    if done.returncode != 0:
        raise RunFailed("data show", "tokenizing failed", "see the output below", messages)
    return [Shown(**json.loads(line)) for line in done.stdout.splitlines()]


def render(records: list[Shown], *, colours: bool) -> str:
    return "\n".join(
        line for number, shown in enumerate(records, 1) for line in _lines(number, shown, colours)
    )


def _lines(number: int, shown: Shown, colours: bool) -> Iterator[str]:
    learnt = sum(label != IGNORED_LABEL for label in shown.labels)
    yield f"record {number}: {len(shown.input_ids):,} tokens, {learnt:,} learnt"
    yield (_coloured(shown) if colours else _bracketed(shown)).rstrip("\n")


def _coloured(shown: Shown) -> str:
    pieces = []
    for index, (text, label) in enumerate(zip(shown.tokens, shown.labels, strict=True)):
        code = (_OTHER if label == IGNORED_LABEL else _LEARNT)[index % 2]
        # A colour that reaches over a line's end would fill the line.
        lines = _visible(text).split("\n")
        pieces.append("\n".join(f"\x1b[{code}m{line}{_RESET}" if line else "" for line in lines))
    return "".join(pieces)


def _bracketed(shown: Shown) -> str:
    return "".join(
        f"{_OPEN}{_visible(each['text'])}{_CLOSE}" if each["learnt"] else _visible(each["text"])
        for each in shown.segments
    )


def _visible(text: str) -> str:
    """Line ends marked, and nothing that would steer the terminal."""
    return harmless(text.replace("\n", "↵\n"))
