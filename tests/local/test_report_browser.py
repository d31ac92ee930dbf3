"""The report in a real browser: its script runs, nobody else's does, and nothing is fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher import report
from tests.launcher.synthetic_run import RUN_ID, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (apt-get install chromium)")


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


def test_picture_and_print(page: Path, tmp_path: Path) -> None:
    picture, printed = tmp_path / "page.png", tmp_path / "page.pdf"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1240,2400")
    assert picture.stat().st_size > 100_000  # an empty page has about 10 kB
    browse(page, tmp_path / "profile", f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF")
