"""The report in a real browser: its script runs, nobody else's does, and nothing is fetched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from launcher import report
from launcher.compare.comparison import compare
from launcher.compare.page import render
from tests.launcher.compare.compared import pair
from tests.launcher.synthetic_run import RUN_ID, write_run
from tests.local.chromium import CHROMIUM, Browser, needs_chromium

pytestmark = needs_chromium


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = write_run(tmp_path_factory.mktemp("store"))
    return store.local_path(report.write(store, RUN_ID))


def test_scripts(page: Path, tmp_path: Path) -> None:
    shown = browse(page, tmp_path / "profile", "--dump-dom")
    assert "<title>harbour-bot · Complete</title>" in shown.stdout  # the records' scripts would change it
    answers = re.findall(r'<article class="card answer"[^>]*>', shown.stdout)
    assert len(answers) == 24
    assert sum("hidden" in answer for answer in answers) == 16  # the page's own script ran
    assert ">Show all 24<" in shown.stdout
    messages = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert messages == []  # neither errors nor refused requests


@pytest.mark.products
def test_a_comparison(tmp_path: Path) -> None:
    html = render(compare(pair(tmp_path / "store", products=True)))
    (tmp_path / "page.html").write_text(html)
    address = (tmp_path / "page.html").as_uri()
    with Browser(tmp_path / "profile") as browser:
        browser.resize(1240, 6000)
        browser.open(address)
        browser.wait_for("#more")
        assert browser.run("document.title") == "harbour-bot · A / B compared"
        assert set(shown(browser, ".answer", "change")) == {"changed lost-b"}  # first those that differ
        assert shown(browser, ".charts", "by") == ["step"]
        browser.click("[data-axis=epoch]")
        assert shown(browser, ".charts", "by") == ["epoch"]
        browser.click("[data-show=none-right]")
        assert shown(browser, ".answer", "change") == ["same none-right"] * 2
        hover(browser, ".charts[data-by=epoch] svg")
        assert re.fullmatch(r"epoch [\d.]+\nA: [\d.]+\nB: [\d.]+\n?", browser.text("#tip"))
        browser.resize(390, 800, phone=True)
        assert browser.run("document.documentElement.scrollWidth") == 390  # nothing is cut off at the side
        assert browser.requested == [address]
        assert browser.complaints == []


def shown(browser: Browser, selector: str, about: str) -> list[str]:
    """`data-about` of the elements that are not hidden."""
    script = f"[...document.querySelectorAll('{selector}:not([hidden])')].map(each => each.dataset.{about})"
    return browser.run(script)


def hover(browser: Browser, selector: str) -> None:
    box = browser.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


def test_picture_and_print(page: Path, tmp_path: Path) -> None:
    picture, printed = tmp_path / "page.png", tmp_path / "page.pdf"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1240,2400")
    assert picture.stat().st_size > 100_000  # an empty page has about 10 kB
    browse(page, tmp_path / "profile", f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF")
