"""The comparison for a terminal, at most `width` columns where its words allow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from launcher.compare import answers, curves
from launcher.compare.answers import Question
from launcher.compare.comparison import Comparison
from launcher.compare.curves import Metric
from launcher.compare.plain import clean, shortened, sparkline, table, wrapped
from launcher.compare.runs import Run
from launcher.compare.scores import Score
from launcher.compare.settings import shown
from launcher.reporting import words
from launcher.reporting.view import outcome, subtitle

_MOST_WIDTH = 140  # beyond, eyes lose the line
_SPARKS_DRAWN = 20  # letters of a curve
_PARTS = 5  # of a curve, whose means are written out; fewer on a narrow terminal
_PART_WIDTH = 11
_QUESTIONS_SHOWN = 3  # of each way to differ
_IN_SENTENCES = ("changed", "all-right", "none-right")  # filters whose labels begin with a plain word


def render(made: Comparison, width: int, *, everything: bool = False) -> str:
    """`everything`: also settings that are the same, and every question whose answers differ."""
    width = min(width, _MOST_WIDTH)
    parts = [
        "\n".join(_runs(made, width)),
        "\n".join(wrapped(" ".join(made.summary), width)),
        "\n".join(_scores(made, width)),
        "\n".join(_curves(made, width)),
        "\n".join(_settings(made, width, everything=everything)),
        "\n".join(_origins(made, width, everything=everything)),
        "\n".join(_figures(made, width)),
        "\n".join(_answers(made, width, everything=everything)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(made: Comparison, width: int) -> Iterator[str]:
    for run in made.runs:
        state = outcome(run.facts)
        where = f" on {run.cluster}" if made.several_clusters else ""
        yield f"{run.letter}  {run.run_id}{where}  {state['text'].lower()}"
        yield from wrapped(" · ".join(subtitle(run.facts)), width, "   ")
        if state["cause"]:
            yield from wrapped(clean(state["cause"]), width, "   ")


def _scores(made: Comparison, width: int) -> Iterator[str]:
    found, pair = made.scores, len(made.runs) == 2
    if found.rows:
        rows = []
        for row in found.rows:
            values = [
                "–" if value is None else f"{words.number(value)}{_signed(row.gain(run))}"
                for run, value in enumerate(row.values)
            ]
            rows.append([row.label, *values, *(["; ".join(_verdicts(row, made))] if pair else [])])
        yield from table(
            [_records(made), *_letters(made), *(["difference from A"] if pair else [])], rows, width
        )
        if not pair:
            for row in found.rows:
                for verdict in _verdicts(row, made):
                    yield from wrapped(f"{row.label}, {verdict}", width)
    for note in found.notes:
        yield from wrapped(note, width)


def _verdicts(row: Score, made: Comparison) -> list[str]:
    """On one run that is held against the first each."""
    return [
        ("" if len(made.runs) == 2 else f"{made.runs[run].letter} against A: ")
        + (f"{verdict}, {verdict.detail}" if verdict.detail else str(verdict))
        for run, verdict in row.verdicts.items()
    ]


def _records(made: Comparison) -> str:
    asked = {count for count in made.scores.records if count}
    return f"Scores of {asked.pop()} answers" if len(asked) == 1 else "Scores"


def _curves(made: Comparison, width: int) -> Iterator[str]:
    found = [
        metric for metric in curves.METRICS if any(curves.points(r, metric, made.axis) for r in made.runs)
    ]
    if not found:
        return
    ends = [points[-1][0] for run in made.runs if (points := curves.points(run, found[0], made.axis))]
    end = max(ends, default=0.0)
    reason = f": {made.axis_reason}" if made.axis_reason else ""
    yield from wrapped(f"Curves by {made.axis}{reason}", width)
    parts = max(1, min(_PARTS, (width - _SPARKS_DRAWN) // _PART_WIDTH - 2))
    cells = [f"≤ {words.number(end * (part + 1) / parts)}" for part in range(parts)]
    rows = [row for metric in found for row in _curve_rows(made.runs, metric, made.axis, end, parts)]
    yield from table(["", "", "", *cells], rows, width, right_from=3)


def _curve_rows(
    runs: Sequence[Run], metric: Metric, axis: curves.Axis, end: float, parts: int
) -> Iterator[list[str]]:
    show = words.count if metric.name == "tokens_per_second" else words.number
    found = [curves.points(run, metric, axis) for run in runs]
    fine = [curves.in_parts(each, end, _SPARKS_DRAWN, last=metric.last) for each in found]
    values = [value for each in fine for value in each if value is not None and math.isfinite(value)]
    if not values:
        return
    low, high = 0.0 if metric.from_zero else min(values), max(values)
    log = curves.is_log(metric, values)
    for index, (run, each) in enumerate(zip(runs, found, strict=True)):
        coarse = curves.in_parts(each, end, parts, last=metric.last)
        numbers = [show(value) if value is not None else "–" for value in coarse]
        yield [
            metric.title if index == 0 else "",
            run.letter,
            sparkline(fine[index], low, high, log=log),
            *numbers,
        ]


def _settings(made: Comparison, width: int, *, everything: bool) -> Iterator[str]:
    found = [row for row in made.settings if everything or row.differs]
    rows = [
        [f"{'≠ ' if everything and row.differs else ''}{row.field}", *map(clean, map(shown, row.values))]
        for row in found
    ]
    same = sum(not row.differs for row in made.settings)
    heading = "Settings" if everything else "Settings that differ"
    if rows:
        yield from table([heading, *_letters(made)], rows, width)
    if same and not everything:
        plural = "s are" if same > 1 else " is"
        yield from wrapped(f"{same} other setting{plural} the same (--all shows them)", width)


def _origins(made: Comparison, width: int, *, everything: bool) -> Iterator[str]:
    yield from table(
        ["Made from", *_letters(made)],
        [
            [
                row.label,
                clean(row.values[0] or "–"),
                *("the same" if row.same else clean(value or "–") for value in row.values[1:]),
            ]
            for row in made.origins
            if everything or not row.same or row.is_input
        ],
        width,
    )
    yield ""
    yield from table(
        ["Stages", *_letters(made)],
        [
            [row.stage, row.keys[0] or "–", *(row.told(index) for index in range(len(row.reasons)))]
            for row in made.partings
        ],
        width,
    )


def _figures(made: Comparison, width: int) -> Iterator[str]:
    group = ""
    rows: list[list[str]] = []
    for row in made.figures:
        if row.group != group:
            if rows:
                yield from table([group, *_letters(made)], rows, width)
                yield ""
            group, rows = row.group, []
        texts = [f"{clean(text)}{_bracketed(row.change_text(run))}" for run, text in enumerate(row.texts)]
        rows.append([row.label, *texts])
    if rows:
        yield from table([group, *_letters(made)], rows, width)


def _answers(made: Comparison, width: int, *, everything: bool) -> Iterator[str]:
    if not made.questions:
        return
    counted = answers.counts(made.questions, made.runs)
    labels = answers.filters(made.runs).items()
    told = "; ".join(
        f"{counted[word]} {label[0].lower() + label[1:] if word in _IN_SENTENCES else label}"
        for word, label in labels
        if counted[word]
    )
    yield from wrapped(f"Answers to {len(made.questions)} common questions: {told}", width)
    shown_words = [word for word in answers.filters(made.runs) if word.startswith(("gained", "lost"))]
    chosen = _chosen(made, shown_words, everything=everything)
    for question in chosen:
        yield ""
        yield from _question(question, made.runs, width)
    rest = counted["changed"] - len(chosen)
    if rest > 0:
        yield ""
        told = f"{rest} more differ (--all shows them, --output FILE.html a page with all)"
        yield from wrapped(told, width)


def _chosen(made: Comparison, wanted: Sequence[str], *, everything: bool) -> list[Question]:
    """Some of each way to differ, or all that differ."""
    if everything:
        return [question for question in made.questions if question.changed]
    found: dict[int, Question] = {}
    for word in [*wanted, "changed"]:
        fitting = [
            (index, question)
            for index, question in enumerate(made.questions)
            if word in answers.words_of(question, made.runs)
        ]
        found |= dict(fitting[: _QUESTIONS_SHOWN if word != "changed" or not found else 0])
    return [found[index] for index in sorted(found)]


def _question(question: Question, runs: Sequence[Run], width: int) -> Iterator[str]:
    last = question.prompt[-1] if question.prompt else {}
    asked = str(last.get("content", "")) if isinstance(last, dict) else ""
    yield from shortened(f"? {clean(asked)}", width)
    yield from shortened(f"= {clean(question.reference)}", width, "  ")
    for run, answer, right in zip(runs, question.answers, question.right, strict=True):
        if answer is not None:
            mark = "✓" if right else "✗"
            yield from shortened(f"{run.letter} {mark} {clean(answer) or '(nothing)'}", width, "  ")


def _letters(made: Comparison) -> list[str]:
    return [run.letter for run in made.runs]


def _signed(gain: float | None) -> str:
    return "" if gain is None else f" ({gain:+.4g})"


def _bracketed(text: str) -> str:
    return f" ({text})" if text else ""
