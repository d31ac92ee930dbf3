"""One tab's conversation: what it holds, and what is shown of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from nicegui import ui

from train.serving.chat.markdown import answer_html, plain_html
from train.serving.chat.talkers import Talker
from train.serving.errors import ApiError
from train.talk.engine import Message, Sampling

_UPDATE_S = 0.08  # between two pictures of a growing answer
_DEFAULT_TOKENS = 1024
_ACCENT = "#12897f"  # between style.css's accents of light and dark
#: Enter sends; with shift, or while an input method composes a character, it does not.
_ENTER = "(e) => { if (!e.shiftKey && !e.isComposing) { e.preventDefault(); emit(); } }"


class ChatView:
    """Builds itself into the slot it is made in. The conversation lives in this object: a reload of the page
    begins anew."""

    def __init__(self, talker: Talker, icon: str) -> None:
        self._talker = talker
        self._messages: list[Message] = []
        self._answering: asyncio.Task[None] | None = None
        ui.context.client.on_delete(self._stop)
        self._settings = Settings()
        with ui.element("div").classes("chat"):
            self._build_header(icon)
            with ui.element("main").classes("scroller"):
                self._welcome = self._build_welcome(icon)
                self._log = ui.element("div").classes("log").props('role=log aria-live="polite"')
            self._build_composer()

    def _build_header(self, icon: str) -> None:
        with ui.element("header").classes("bar"):
            ui.html(icon, sanitize=False).classes("mark")
            ui.label(self._talker.name).classes("name").tooltip(self._talker.name)
            _icon_button("add_comment", "New conversation", self._reset)
            _icon_button("tune", "Settings", self._settings.open)
            theme = _icon_button("contrast", "Light or dark", None)
            theme.on("click", js_handler="() => slipwayToggleTheme()")

    def _build_welcome(self, icon: str) -> ui.element:
        with ui.element("div").classes("welcome") as welcome:
            ui.html(icon, sanitize=False).classes("mark large")
            ui.label(f"Talk to {self._talker.name}").classes("welcome-title")
            ui.label("Answers are computed by this server alone.").classes("welcome-text")
            ui.label(self._talker.description).classes("welcome-text small-text")
        return welcome

    def _build_composer(self) -> None:
        with ui.element("footer").classes("composer"), ui.element("div").classes("composer-box"):
            self._input = ui.textarea(placeholder="Write a message").classes("composer-text")
            self._input.props('autogrow borderless autofocus dense aria-label="Message" maxlength=1000000')
            self._input.on("keydown.enter", self._send, js_handler=_ENTER)
            self._send_button = _icon_button("arrow_upward", "Send", self._send, "send")
            self._stop_button = _icon_button("stop", "Stop", self._stop, "send stop")
            self._stop_button.visible = False

    async def _send(self) -> None:
        text = (self._input.value or "").strip()
        if not text or self._answering is not None:
            return
        self._input.value = ""
        self._welcome.visible = False
        if self._messages and self._messages[-1]["role"] == "user":  # it got no answer
            self._messages.pop()
        self._messages.append({"role": "user", "content": text})
        with self._log, ui.element("div").classes("turn user"):
            ui.html(plain_html(text)).classes("bubble")
        await self._answer()

    async def _answer(self) -> None:
        """Answer the last message. Ends when the answer does, or is stopped."""
        with self._log:
            turn = Turn(self._again)
        self._show_answering(True)
        self._answering = asyncio.current_task()
        messages, system = self._messages, self._settings.system
        asked = [*([{"role": "system", "content": system}] if system else []), *messages]
        try:
            async with contextlib.aclosing(self._talker.talk(asked, self._settings.sampling())) as pieces:
                async for piece in pieces:
                    turn.add(piece.text, piece.tokens)
                    if piece.finish_reason == "length":
                        turn.note = "ended at the longest length"
        except asyncio.CancelledError:
            turn.note = "stopped"
        except ApiError as error:
            turn.error = error.message
        finally:
            self._answering = None
            self._show_answering(False)
            turn.end()
        if turn.text:
            messages.append({"role": "assistant", "content": turn.text})

    async def _again(self, turn: Turn) -> None:
        """Another answer instead of the last one."""
        if self._answering is not None or not self._messages:
            return
        if self._messages[-1]["role"] == "assistant":
            self._messages.pop()
        turn.delete()
        await self._answer()

    def _show_answering(self, answering: bool) -> None:
        self._send_button.visible = not answering
        self._stop_button.visible = answering

    def _stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def _reset(self) -> None:
        self._stop()
        self._messages = []
        self._log.clear()
        self._welcome.visible = True


class Turn:
    """An answer on the page, growing."""

    def __init__(self, again: Callable[[Turn], Any]) -> None:
        self.text = ""
        self.note: str | None = None
        self.error: str | None = None
        self._again = again
        self._tokens, self._shown_s = 0, 0.0
        self._first_s: float | None = None
        with ui.element("div").classes("turn model") as self._element:
            self._body = ui.html('<span class="dots"><i></i><i></i><i></i></span>').classes("answer")
            self._foot = ui.element("div").classes("foot")

    def add(self, text: str, tokens: int) -> None:
        now_s = time.monotonic()
        self._first_s = self._first_s or now_s
        self.text, self._tokens = self.text + text, tokens
        if text and now_s - self._shown_s >= _UPDATE_S:
            self._shown_s = now_s
            self._body.set_content(answer_html(self.text, complete=False))

    def end(self) -> None:
        """All that came, and what can be said of it."""
        if self._element.is_deleted:  # a new conversation was begun
            return
        self._body.set_content(answer_html(self.text))
        self._foot.clear()
        with self._foot:
            if self.error is not None:
                ui.label(self.error).classes("failure").props("role=alert")
            if self.text:
                copied = f"slipwayCopy({json.dumps(self.text)})"
                _icon_button("content_copy", "Copy", lambda: ui.run_javascript(copied), "small")
            _icon_button("refresh", "Answer again", lambda: self._again(self), "small again")
            ui.label(" · ".join(self._facts())).classes("facts")

    def _facts(self) -> list[str]:
        silent = "the model had nothing to say" if not self.text and self.error is None else None
        facts = [note for note in (self.note or silent,) if note]
        if self._tokens:
            facts.append(f"{self._tokens} token{'s' if self._tokens != 1 else ''}")
        took_s = time.monotonic() - (self._first_s or 0.0)
        if self._tokens > 1 and took_s > 0:
            facts.append(f"{(self._tokens - 1) / took_s:.3g} tokens/s")
        return facts

    def delete(self) -> None:
        self._element.delete()


class Settings:
    """How it is asked: a panel at the right."""

    def __init__(self) -> None:
        ui.colors(primary=_ACCENT)
        self._dialog = ui.dialog().props('position=right maximized aria-label="Settings"')
        with self._dialog, ui.element("div").classes("settings"):
            with ui.element("div").classes("settings-head"):
                ui.label("Settings").classes("settings-title")
                _icon_button("close", "Close", self._dialog.close)
            self._system = ui.textarea("System prompt", placeholder="What the model should know or be")
            self._system.props("outlined autogrow").classes("settings-field system")
            self._temperature = _slider("Temperature", 0.0, 2.0, 0.0, "0: always the likeliest word")
            self._top_p = _slider("Top p", 0.05, 1.0, 1.0, "1: all words may be chosen")
            self._length = ui.number("Longest answer, in tokens", value=_DEFAULT_TOKENS, min=1, precision=0)
            self._length.props("outlined clearable").classes("settings-field length")

    def open(self) -> None:
        self._dialog.open()

    @property
    def system(self) -> str:
        return (self._system.value or "").strip()

    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=max(1, int(self._length.value)) if self._length.value else None,
            temperature=float(self._temperature.value),
            top_p=float(self._top_p.value),
        )


def _slider(title: str, low: float, high: float, value: float, hint: str) -> ui.slider:
    with ui.element("div").classes("settings-field"):
        with ui.element("div").classes("slider-head"):
            ui.label(title)
            shown = ui.label().classes("slider-value")
        slider = ui.slider(min=low, max=high, step=0.05, value=value).props(f'aria-label="{title}"')
        shown.bind_text_from(slider, "value", backward=lambda number: f"{number:.2f}")
        ui.label(hint).classes("hint")
    return slider


def _icon_button(icon: str, title: str, act: Callable[..., Any] | None, classes: str = "") -> ui.button:
    button = ui.button(icon=icon, on_click=act, color=None).props(f'flat round dense aria-label="{title}"')
    return button.classes(f"icon-button {classes}").tooltip(title)
