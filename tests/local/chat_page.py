"""The chat page as a person uses it."""

from __future__ import annotations

import time

from tests.local.chromium import Browser, wait_until


def open_chat(browser: Browser, url: str) -> None:
    """Until the page's own connection is there: what is clicked before is lost."""
    browser.open(url)
    browser.wait_for(".composer-text textarea")
    wait_until(lambda: browser.run("window.did_handshake ?? !!window.socket?.connected"))


def ask(page: Browser, text: str) -> None:
    page.click(".composer-text textarea")
    page.type(text)
    page.enter()


def set_length(page: Browser, tokens: int) -> None:
    """The longest answer, in the settings."""
    page.click("[aria-label=Settings]")
    page.wait_for(".length input")
    time.sleep(0.5)  # it slides in
    page.click(".length input")
    page.run("document.querySelector('.length input').select()")
    page.type(str(tokens))
    page.click("[aria-label=Close]")
    wait_until(lambda: not page.run("!!document.querySelector('.length input')"))
