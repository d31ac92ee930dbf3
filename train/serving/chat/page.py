"""The page at `/`: NiceGUI mounted on the server's application."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui

from train.serving.chat.talkers import Talker
from train.serving.chat.view import ChatView
from train.serving.guard import is_key

_FOLDER = Path(__file__).parent
_WRONG_KEY_S = 1.0  # between two guesses
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" '
    'fill="#0f766e"/><path d="M6 21h20l-3.4 5H9.4zM15 6v12H8.6zM17.4 9.5 24 18h-6.6z" fill="#fff"/></svg>'
)


def add_page(app: FastAPI, talker: Talker, *, api_key: str | None) -> None:
    """Mount it on all paths that the application has no route for. With an API key it asks for that first.
    NiceGUI has one application in a process, so there can be one page."""

    @ui.page("/", title=talker.name)
    def chat() -> None:
        ui.add_css(_FOLDER / "style.css")
        ui.add_body_html(f"<script>{(_FOLDER / 'script.js').read_text(encoding='utf-8')}</script>")
        if api_key is None:
            ChatView(talker, _ICON)
        else:
            _ask_for_key(talker, api_key)

    ui.run_with(
        app,
        title=talker.name,
        favicon=_ICON,
        dark=None,  # as the system is set
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=10,
    )


def _ask_for_key(talker: Talker, api_key: str) -> None:
    async def enter() -> None:
        if is_key(key.value or "", api_key):
            room.clear()
            with room:
                ChatView(talker, _ICON)
            return
        key.value = ""
        send.disable()
        await asyncio.sleep(_WRONG_KEY_S)
        send.enable()
        key.props('error error-message="That is not the key."')

    room = ui.element("div").classes("room")
    with room, ui.element("div").classes("gate"):
        ui.html(_ICON, sanitize=False).classes("mark")
        ui.label(talker.name).classes("gate-name")
        key = ui.input("API key", password=True).props("outlined autofocus").classes("gate-key")
        key.on("keydown.enter", enter)
        send = ui.button("Open the chat", on_click=enter, color=None).classes("gate-send").props("unelevated")
