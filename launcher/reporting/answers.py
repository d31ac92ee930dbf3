"""Answers as the pages show them: cards of a question, its reference and what models said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.reporting.differences import highlighted

Values = dict[str, Any]

_TEXT_SHOWN = 4000  # characters of one answer
#: How training changed an answer, in the words of the page.
CHANGES = {
    "gained": "Now right",
    "right": "Right before too",
    "wrong": "Still wrong",
    "lost": "No longer right",
}


def is_right(answer: str, reference: str) -> bool:
    """As `exact_match` counts: blanks around it do not matter."""
    return answer.strip() == reference.strip()


def before_and_after(rows: Sequence[Mapping[str, Any]]) -> list[Values]:
    """A card for each row of a run's predictions."""
    return [_before_and_after(row) for row in rows]


def choices(cards: Sequence[Values]) -> list[tuple[str, str, str, int]]:
    """The filters above the cards: word, spot, label, how many."""
    counted = Counter(card["change"] for card in cards)
    return [
        ("", "", "All", len(cards)),
        *((change, change, label, counted[change]) for change, label in CHANGES.items()),
    ]


def _before_and_after(row: Mapping[str, Any]) -> Values:
    reference = str(row.get("reference", ""))
    texts = {name: row[name] for name in ("base", "tuned") if isinstance(row.get(name), str)}
    right = {name: is_right(text, reference) for name, text in texts.items()}
    change = {
        (False, True): "gained",
        (True, False): "lost",
        (True, True): "right",
    }.get((right.get("base", False), right.get("tuned", False)), "wrong")
    named = {"base": ("Before", "before"), "tuned": ("After", "after")}
    shown = [said(*named[name], text, reference) for name, text in texts.items()]
    return question(row.get("index", 0), row.get("prompt", []), reference, shown) | {
        "change": change,
        "spot": change,
        "title": CHANGES[change],
    }


def question(index: int, prompt: Sequence[Any], reference: str, texts: Sequence[Values]) -> Values:
    """A card but for its `change`, `spot` and `title`. `prompt`: the messages before the answer."""
    messages = [message for message in prompt if isinstance(message, dict)]
    return {
        "index": index,
        "question": shortened(str(messages[-1].get("content", "")) if messages else ""),
        "earlier": [(str(m.get("role")), shortened(str(m.get("content", "")))) for m in messages[:-1]],
        "reference": shortened(reference),
        "texts": list(texts),
    }


def said(label: str, style: str, text: str, reference: str) -> Values:
    """One answer on a card; `style` is a class of the style sheet."""
    return {
        "label": label,
        "style": style,
        "html": highlighted(shortened(text), shortened(reference)),
        "empty": not text.strip(),
        "right": is_right(text, reference),
    }


def shortened(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]} […]"
