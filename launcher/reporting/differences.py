"""An answer beside its reference: which words differ."""

from __future__ import annotations

import difflib
import re

from markupsafe import Markup, escape

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_COMPARED_TOKENS = 1500  # difflib is quadratic


def highlighted(answer: str, reference: str) -> Markup:
    """The answer, escaped; what the reference does not have in that place is marked."""
    left, right = _TOKEN.findall(answer), _TOKEN.findall(reference)
    if answer.strip() == reference.strip() or len(left) + len(right) > _COMPARED_TOKENS:
        return escape(answer)
    parts = []
    matcher = difflib.SequenceMatcher(None, right, left, autojunk=False)
    for kind, _, _, start, stop in matcher.get_opcodes():
        text = escape("".join(left[start:stop]))
        parts.append(text if kind == "equal" or not text.strip() else Markup("<mark>{}</mark>").format(text))
    return Markup("").join(parts)
