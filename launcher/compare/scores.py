"""Scores side by side: how much each run's differ from the first's, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.compare import chance
from launcher.compare.answers import Question
from launcher.compare.chance import Verdict
from launcher.compare.runs import Run
from launcher.reporting.view import SCORES

NAMES = {**SCORES, "perplexity": "Perplexity of references"}
Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value for each run, None where it has none; `verdicts` by the place of the run that is held against
    the first."""

    name: str
    label: str
    values: list[float | None]
    better: Better = "higher"
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def gain(self, run: int) -> float | None:
        first, value = self.values[0], self.values[run]
        return None if run == 0 or first is None or value is None else value - first

    def is_better(self, run: int) -> bool | None:
        gain = self.gain(run)
        return None if not gain else (gain > 0) == (self.better == "higher")


@dataclass(frozen=True, kw_only=True)
class Scores:
    rows: list[Score]
    records: list[int | None]  # questions of each run
    common: int  # asked in all runs that were asked any, with the same reference
    notes: list[str]


def scores(runs: Sequence[Run], found: Sequence[Question]) -> Scores:
    values = [(run.facts.scores or {}).get("tuned") or {} for run in runs]
    records = [_records(run) for run in runs]
    asked = [index for index, run in enumerate(runs) if run.facts.predictions]
    shared = [question for question in found if question.is_common(*asked)] if len(asked) > 1 else []
    rows = [
        Score(
            name=name,
            label=label,
            values=[each.get(name) for each in values],
            better="lower" if name == "perplexity" else "higher",
            verdicts=_verdicts(name, asked, found),
        )
        for name, label in NAMES.items()
        if any(each.get(name) is not None for each in values)
    ]
    whole = all(records[index] == len(shared) for index in asked)
    if shared and not whole:
        rows.insert(0, _on_common(shared, len(runs), asked, rows))
    return Scores(rows=rows, records=records, common=len(shared), notes=_notes(runs, asked, records, shared))


def _records(run: Run) -> int | None:
    return (run.facts.scores or {}).get("records", len(run.facts.predictions) or None)


def _verdicts(name: str, asked: Sequence[int], found: Sequence[Question]) -> dict[int, Verdict]:
    """Of the runs that were asked the same as the first, by the questions that both were asked."""
    if 0 not in asked:
        return {}
    judged: dict[str, Callable[[Sequence[Question], int], Verdict | None]] = {
        "exact_match": _of_matches,
        **dict.fromkeys(("rouge1", "rouge2", "rougeL"), lambda both, run: _of_scores(name, both, run)),
    }
    verdicts = {}
    for run in asked:
        both = [question for question in found if question.is_common(0, run)]
        if run and both and name in judged and (verdict := judged[name](both, run)):
            verdicts[run] = verdict
    return verdicts


def _of_matches(both: Sequence[Question], run: int) -> Verdict:
    first = [bool(question.right[0]) for question in both]
    second = [bool(question.right[run]) for question in both]
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    detail = f"{gained} gained, {lost} lost of {len(both)}"
    return Verdict(p=chance.mcnemar(first, second), test="McNemar", questions=len(both), detail=detail)


def _of_scores(name: str, both: Sequence[Question], run: int) -> Verdict | None:
    told = [question for question in both if all(name in question.scores[index] for index in (0, run))]
    if len(told) != len(both):
        return None
    first, second = ([question.scores[index][name] for question in told] for index in (0, run))
    p = chance.bootstrap(first, second)
    return Verdict(p=p, test="paired bootstrap", questions=len(told))


def _on_common(shared: Sequence[Question], runs: int, asked: Sequence[int], rows: Sequence[Score]) -> Score:
    values: list[float | None] = [None] * runs
    for run in asked:
        values[run] = round(100 * sum(bool(question.right[run]) for question in shared) / len(shared), 2)
    known = next((row.verdicts for row in rows if row.name == "exact_match"), {})
    label = f"Exact match, {len(shared)} common"
    return Score(name="exact_match_common", label=label, values=values, verdicts=known)


def _notes(
    runs: Sequence[Run], asked: Sequence[int], records: Sequence[int | None], shared: Sequence[Any]
) -> list[str]:
    notes = []
    unasked = [run.letter for index, run in enumerate(runs) if index not in asked]
    if asked and unasked:
        notes.append(f"{' and '.join(unasked)} answered no test questions.")
    if len(asked) > 1 and any(records[index] != len(shared) for index in asked):
        told = ", ".join(f"{runs[index].letter} {records[index]}" for index in asked)
        notes.append(
            f"The test questions are not the same ({told}; {len(shared)} in common): "
            "scores are of each run's own."
        )
    return notes
