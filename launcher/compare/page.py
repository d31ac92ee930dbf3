"""The comparison as a self-contained HTML page in the look of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launcher.compare import answers, curves
from launcher.compare.answers import Question
from launcher.compare.comparison import Comparison
from launcher.compare.curves import Axis, Metric
from launcher.compare.figures import FigureRow
from launcher.compare.runs import Run
from launcher.compare.scores import Score
from launcher.compare.settings import Setting, shown
from launcher.reporting import answers as cards
from launcher.reporting import charts, page, words
from launcher.reporting.charts import Series
from launcher.reporting.view import outcome, subtitle

Values = dict[str, Any]

_QUESTIONS_SHOWN = 300
_POINTS_DRAWN = 300  # of a curve: there is one for each axis
_AXIS_LABELS: dict[Axis, str] = {
    "step": "Steps",
    "epoch": "Epochs",
    "supervised tokens": "Supervised tokens",
    "minutes": "Time",
}


def render(made: Comparison, *, everything: bool = False) -> str:
    """The page. `everything`: all questions, however many."""
    return page.render(
        "compare.html.j2", view(made, everything=everything), room="launcher.compare", style="compare.css"
    )


def view(made: Comparison, *, everything: bool = False) -> Values:
    """The template's variables."""
    chosen = _chosen(made.questions, None if everything else _QUESTIONS_SHOWN)
    counted = answers.counts(made.questions, made.runs)
    labels = answers.filters(made.runs)
    return {
        "title": " and ".join(dict.fromkeys(run.facts.plan.name for run in made.runs)),
        "runs": [_run(run, several=made.several_clusters) for run in made.runs],
        "summary": made.summary,
        "scores": [_score(row, made.runs) for row in made.scores.rows],
        "score_notes": made.scores.notes,
        "answered": " or ".join(str(count) for count in sorted({n for n in made.scores.records if n})),
        "axes": [(axis, _AXIS_LABELS[axis]) for axis in curves.axes(made.runs)],
        "axis": made.axis,
        "axis_reason": made.axis_reason,
        "charts": _charts(made),
        "differing": [_setting(row) for row in made.settings if row.differs],
        "same": [_setting(row) for row in made.settings if not row.differs],
        "origins": [{"label": row.label, "cells": row.values, "same": row.same} for row in made.origins],
        "partings": made.partings,
        "groups": _groups(made.figures),
        "answers": [_question(index, question, made.runs) for index, question in chosen],
        "answer_choices": [
            ("", "", "All", len(made.questions)),
            *((word, word.partition("-")[0], label, counted[word]) for word, label in labels.items()),
        ],
        "answers_total": len(made.questions),
        "shown_first": "changed" if counted["changed"] else "",
    }


def _run(run: Run, *, several: bool) -> Values:
    """`several`: the runs lie in the stores of several clusters."""
    training = run.training
    return {
        "letter": run.letter,
        "style": run.style,
        "run_id": run.run_id,
        "cluster": run.cluster if several else "",
        "outcome": outcome(run.facts),
        "subtitle": " · ".join(subtitle(run.facts)),
        "began": words.moment(float(run.facts.events[0]["time_s"])) if run.facts.events else "",
        "batch": training.sequences_per_step if training else None,
    }


def _score(row: Score, runs: Sequence[Run]) -> Values:
    known = [value for value in row.values if value is not None]
    full = 100.0 if row.better == "higher" else max(known, default=1.0)
    return {
        "label": row.label,
        "lines": [
            {
                "letter": run.letter,
                "style": run.style,
                "value": words.number(value) if value is not None else "–",
                "width": 100 * value / full if value is not None and full else 0,
                "gain": row.gain(index),
                "trend": _trend(row.is_better(index)),
            }
            for index, (run, value) in enumerate(zip(runs, row.values, strict=True))
        ],
        "verdicts": [
            (runs[index].letter if len(runs) > 2 else "", str(verdict), verdict.detail, verdict.test)
            for index, verdict in row.verdicts.items()
        ],
    }


def _trend(better: bool | None) -> str:
    return "" if better is None else "up" if better else "down"


def _charts(made: Comparison) -> list[Values]:
    """A chart for each metric and axis; the page shows one axis at a time."""
    found = []
    for axis in curves.axes(made.runs):
        shown_first = True
        for metric in curves.METRICS:
            series = _series(made.runs, metric, axis)
            log = curves.is_log(metric, [y for line in series for _, y in line.points])
            chart = charts.line_chart(
                series,
                x_label=axis,
                describe=words.count if metric.name == "tokens_per_second" else words.number,
                from_zero=metric.from_zero,
                log=log,
                title=f"{metric.title} of {' and '.join(run.letter for run in made.runs)}",
                points_drawn=_POINTS_DRAWN,
            )
            if chart is not None:
                legend = [(line.label, line.style) for line in series if line.points]
                found.append(
                    {
                        "axis": axis,
                        "title": f"{metric.title}, log scale" if log else metric.title,
                        "chart": chart,
                        "legend": legend,
                        "wide": shown_first,
                    }
                )
                shown_first = False
    return found


def _series(runs: Sequence[Run], metric: Metric, axis: Axis) -> list[Series]:
    return [
        Series(
            run.letter,
            curves.points(run, metric, axis),
            run.style,
            dots=metric.name == "eval_loss",
            smooth=metric.name in ("loss", "tokens_per_second"),
        )
        for run in runs
    ]


def _setting(row: Setting) -> Values:
    return {
        "field": row.field,
        "cells": [
            {"text": shown(value), "reason": reason}
            for value, reason in zip(row.values, row.reasons, strict=True)
        ],
    }


def _groups(rows: Sequence[FigureRow]) -> list[tuple[str, list[Values]]]:
    groups: dict[str, list[Values]] = {}
    for row in rows:
        cells = [
            {
                "text": text,
                "change": row.change_text(run),
                "trend": _trend(row.is_better(run)),
            }
            for run, text in enumerate(row.texts)
        ]
        groups.setdefault(row.group, []).append({"label": row.label, "cells": cells})
    return list(groups.items())


def _chosen(found: Sequence[Question], at_most: int | None) -> list[tuple[int, Question]]:
    """So many, in order, those whose answers differ before all others."""
    numbered = list(enumerate(found))
    if at_most is None or len(numbered) <= at_most:
        return numbered
    return sorted(sorted(numbered, key=lambda pair: not pair[1].changed)[:at_most], key=lambda pair: pair[0])


def _question(index: int, question: Question, runs: Sequence[Run]) -> Values:
    reference, found = question.reference, answers.words_of(question, runs)
    texts = [
        cards.said(run.letter, f"of {run.style}", answer, own or reference)
        for run, answer, own in zip(runs, question.answers, question.references, strict=True)
        if answer is not None
    ]
    told = [answers.filters(runs)[word] for word in found if word in answers.filters(runs)]
    return cards.question(index, question.prompt, reference, texts) | {
        "change": " ".join(found),
        "spot": found[-1].partition("-")[0],
        "title": ", ".join(told) or "The same answer",
    }
