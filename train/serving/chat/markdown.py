"""What a model writes, as HTML that can do nothing.

HTML in an answer is shown as text; links are http, https or mailto; pictures stay links, since a browser
would fetch their addresses, and with them whatever the model put there. (The browser's DOMPurify and the
page's content security policy stand behind.)
"""

from __future__ import annotations

import functools
import html

from markdown_it import MarkdownIt

_THINK, _THOUGHT = "<think>", "</think>"


def answer_html(text: str, *, complete: bool = True) -> str:
    """Markdown with its thinking, if any, folded away; open while the model still thinks."""
    thinking, answer = split_thinking(text)
    shown = _markdown().render(answer)
    if not thinking.strip():
        return shown
    still = " open" if not complete and not answer else ""
    title = "Thinking …" if still else "Thoughts"
    folded = (
        f'<details class="thinking"{still}><summary>{title}</summary>{_markdown().render(thinking)}</details>'
    )
    return folded + shown


def plain_html(text: str) -> str:
    """What a person wrote, as it is."""
    return html.escape(text).replace("\n", "<br>")


def split_thinking(text: str) -> tuple[str, str]:
    """What stands in a `<think>` block at the beginning (closed or not yet), and the rest."""
    start = text.lstrip()
    if not start.startswith(_THINK):
        return "", text
    thinking, _, answer = start.removeprefix(_THINK).partition(_THOUGHT)
    return thinking, answer


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("js-default", {"html": False, "breaks": True}).disable("image")
