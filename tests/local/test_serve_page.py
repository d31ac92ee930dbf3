"""The chat page in a real browser, over an engine that repeats what it is told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.contract import Source
from launcher.serving.servers import API_KEY, Servers
from tests.local.chat_page import ask, open_chat, set_length
from tests.local.chromium import Browser, needs_chromium, wait_until

pytestmark = [pytest.mark.products, needs_chromium]

#: A model's worst: scripts, a picture that a browser would fetch, links that run.
HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> "
    "![a](https://evil.example/?stolen) [run](javascript:document.title='taken') "
    "<iframe src=https://evil.example></iframe> **bold** `<b>code</b>` [site](https://site.example)"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    yield from serve()


def serve(*arguments: str) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    command = [sys.executable, "-m", "tests.local.echo_server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Browser]:
    """The page, newly opened. Afterwards: nothing was asked of others, nothing complained."""
    browser.requested.clear()
    browser.complaints.clear()
    browser.resize(1280, 800)
    open_chat(browser, url)
    yield browser
    here = (url, url.replace("http", "ws"), "data:", "about:")
    assert [each for each in browser.requested if not each.startswith(here)] == []
    assert browser.complaints == []
    assert browser.run("document.title") == "echo"


def answered(page: Browser, count: int = 1) -> None:
    wait_until(lambda: page.run("document.querySelectorAll('.facts').length") == count)


def test_answers_come_as_they_are_made(page: Browser) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    ask(page, words)
    page.wait_for(".answer", "word3")
    assert "word59" not in page.text(".answer")
    answered(page)
    assert page.text(".answer") == words
    assert page.text(".bubble") == words
    assert "61 tokens" in page.text(".facts")
    ask(page, "and more")
    answered(page, 2)
    assert page.text(".answer") == f"{words}\nand more"


def test_nothing_a_model_writes_runs_or_is_fetched(page: Browser) -> None:
    ask(page, HOSTILE)
    answered(page)
    answer = page.text(".answer")
    assert "<script>document.title='taken'</script>" in answer and "<iframe" in answer
    assert page.run("document.querySelectorAll('.answer :is(img, script, iframe)').length") == 0
    assert page.text(".answer strong") == "bold" and page.text(".answer code") == "<b>code</b>"
    links = page.run("[...document.querySelectorAll('.answer a')].map(link => link.href)")
    assert links == ["https://evil.example/?stolen", "https://site.example/"]
    assert page.run("document.querySelector('.bubble').children.length") == 0


def test_stop_reset_and_again(page: Browser) -> None:
    ask(page, "word " * 300)
    page.wait_for(".answer", "word word")
    page.click("[aria-label=Stop]")
    answered(page)
    assert "stopped" in page.text(".facts") and len(page.text(".answer").split()) < 250
    page.click("[aria-label='Answer again']")
    page.wait_for(".answer", "word word")
    page.click("[aria-label=Stop]")
    answered(page)
    page.click("[aria-label='New conversation']")
    wait_until(lambda: page.run("document.querySelectorAll('.turn').length") == 0)
    assert "Talk to echo" in page.text(".welcome")
    ask(page, "after all")
    answered(page)
    assert page.text(".answer") == "after all"


def test_a_new_conversation_while_an_answer_comes(page: Browser) -> None:
    ask(page, "word " * 200)
    page.wait_for(".answer", "word word")
    page.click("[aria-label='New conversation']")
    wait_until(lambda: page.run("document.querySelectorAll('.turn').length") == 0)
    ask(page, "history")
    answered(page)
    assert page.text(".answer") == "user: history"


def test_errors_are_shown(page: Browser) -> None:
    ask(page, "refused")
    page.wait_for("[role=alert]", "the template refuses it")
    ask(page, "history")
    answered(page, 2)
    assert page.text(".answer").strip() == "user: history"  # what was refused is not said again
    page.click("[aria-label=Settings]")
    page.wait_for(".system textarea")
    time.sleep(0.5)  # it slides in
    page.click(".system textarea")
    page.type("Be brief.")
    page.click("[aria-label=Close]")
    wait_until(lambda: not page.run("!!document.querySelector('.system textarea')"))
    ask(page, "history")
    answered(page, 3)
    told = page.text(".answer").strip().splitlines()[-1]
    assert told == "system: Be brief. user: history assistant: user: history user: history"


def test_settings(page: Browser) -> None:
    set_length(page, 2)
    ask(page, "one two three")
    answered(page)
    assert page.text(".answer") == "one two" and "ended at the longest length" in page.text(".facts")


def test_shift_and_enter_begin_a_line(page: Browser) -> None:
    page.click(".composer-text textarea")
    page.type("one")
    page.press("Enter", 13, "\r", modifiers=8)
    page.type("two")
    page.enter()
    answered(page)
    assert page.text(".bubble") == "one\ntwo"


def test_light_and_dark_stay_chosen(page: Browser, url: str) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    first = page.run(colour)
    page.click("[aria-label='Light or dark']")
    wait_until(lambda: page.run(colour) != first)
    open_chat(page, url)
    wait_until(lambda: page.run(colour) != first)
    page.run("localStorage.clear()")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 780)])
def test_it_fits(page: Browser, tmp_path: Path, width: int, height: int) -> None:
    page.resize(width, height, phone=width < 600)
    ask(page, f"{'wide' * 60} | `{'code' * 60}` | last")
    answered(page)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.querySelector('.composer').getBoundingClientRect().bottom") <= height
    assert page.picture(tmp_path / "page.png").stat().st_size > 10_000  # an empty one has about 5 kB


def test_the_page_asks_for_the_key(browser: Browser) -> None:
    for url in serve("--key=s3cret"):
        browser.resize(1280, 800)
        browser.open(url)
        browser.click(".gate-key input")
        browser.type("wrong")
        browser.enter()
        browser.wait_for(".gate-key", "That is not the key.")
        browser.type("s3cret")
        browser.enter()
        browser.wait_for(".composer-text textarea")
        ask(browser, "hello there")
        answered(browser)
        assert browser.text(".answer") == "hello there"


def test_vllm_with_the_page_beside_it(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own server stands in for vLLM: it has the same API, and takes the key from the same variable."""
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.local.echo_server "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(API_KEY, "s3cret")
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with Servers() as servers:
        source = Source(name="echo", folder=tmp_path)
        served = servers.start("vllm", source, host="127.0.0.1", port=free_ports(2), page=True)
        assert served.page is not None and served.api != f"{served.page}/v1"
        browser.open(served.page)
        browser.click(".gate-key input")
        browser.type("s3cret")
        browser.enter()
        browser.wait_for(".composer-text textarea")
        ask(browser, "hello there")
        answered(browser)
        assert browser.text(".answer") == "hello there" and "3 tokens" in browser.text(".facts")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(served.page.rpartition(":")[2])))


def free_ports(count: int) -> int:
    """The first of so many in a row."""
    while True:
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            first = taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
