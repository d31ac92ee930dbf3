"""Answers of several runs to the same questions, found by the question and not by its place in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.contract import canonical_json
from launcher.compare.runs import Run
from launcher.reporting.answers import is_right


@dataclass(frozen=True, kw_only=True)
class Question:
    """One that at least two runs were asked. Lists have an entry for each run, None for one that was not.

    `references` may differ where a test file was mended; each answer is judged by its own.
    """

    prompt: list[Any]  # messages
    references: list[str | None]
    answers: list[str | None]
    scores: list[dict[str, float]]  # of each answer; empty where the run does not tell

    @property
    def reference(self) -> str:
        return next((reference for reference in self.references if reference is not None), "")

    @property
    def right(self) -> list[bool | None]:
        return [
            None if answer is None or reference is None else is_right(answer, reference)
            for answer, reference in zip(self.answers, self.references, strict=True)
        ]

    @property
    def changed(self) -> bool:
        """Whether two runs answer differently, blanks around it aside."""
        return len({answer.strip() for answer in self.answers if answer is not None}) > 1

    def is_common(self, *runs: int) -> bool:
        """Whether these runs were asked, and have the same reference."""
        asked = all(self.answers[run] is not None for run in runs)
        return asked and len({self.references[run] for run in runs}) == 1


def questions(runs: Sequence[Run]) -> list[Question]:
    """In the order of the first run, then those that only later runs were asked. A question that stands
    several times in a test file is paired in that order."""
    rows = [_by_question(run) for run in runs]
    keys = list(dict.fromkeys(key for found in rows for key in found))
    made = []
    for key in keys:
        asked = [found.get(key) for found in rows]
        told = [row for row in asked if row is not None]
        if len(told) > 1:
            made.append(
                Question(
                    prompt=told[0].get("prompt") or [],
                    references=[None if row is None else str(row.get("reference", "")) for row in asked],
                    answers=[None if row is None else str(row["tuned"]) for row in asked],
                    scores=[((row or {}).get("scores") or {}).get("tuned") or {} for row in asked],
                )
            )
    return made


def words_of(question: Question, runs: Sequence[Run]) -> list[str]:
    """What the filters ask for: `changed` or `same`; `all-right`, `none-right`; and of each run but the first
    `gained-b` (right where A is wrong), `lost-b`."""
    right = question.right
    asked = [value for value in right if value is not None]
    found = ["changed" if question.changed else "same"]
    if all(asked):
        found.append("all-right")
    elif not any(asked):
        found.append("none-right")
    for run, value in list(zip(runs, right, strict=True))[1:]:
        if None not in (right[0], value) and right[0] != value:
            found.append(f"{'gained' if value else 'lost'}-{run.style}")
    return found


def filters(runs: Sequence[Run]) -> dict[str, str]:
    """The words, and what people call them."""
    both = "Both" if len(runs) == 2 else "All"
    neither = "Neither" if len(runs) == 2 else "None"
    pairs = {}
    for run in runs[1:]:
        pairs[f"gained-{run.style}"] = f"{run.letter} right, {runs[0].letter} wrong"
        pairs[f"lost-{run.style}"] = f"{runs[0].letter} right, {run.letter} wrong"
    return {"changed": "Changed", **pairs, "all-right": f"{both} right", "none-right": f"{neither} right"}


def counts(found: Sequence[Question], runs: Sequence[Run]) -> Counter[str]:
    return Counter(word for question in found for word in words_of(question, runs))


def _by_question(run: Run) -> dict[tuple[bytes, int], dict[str, Any]]:
    seen, rows = Counter[bytes](), {}
    for row in run.facts.predictions:
        if isinstance(row.get("tuned"), str):
            asked = canonical_json([row.get("prompt"), row.get("tools")])
            rows[asked, seen[asked]] = row
            seen[asked] += 1
    return rows
