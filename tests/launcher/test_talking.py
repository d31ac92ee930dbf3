"""The process that talks: what it is given, and what is said of how it ended."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Source
from launcher import talking
from launcher.errors import ClusterError, UserError

TALKER = """
import json, os, signal, sys
ending = sys.argv[-1]
open("told", "w").write(json.dumps(sys.argv[1:]))
if ending.startswith("SIG"):
    os.kill(os.getpid(), getattr(signal, ending))
sys.exit(int(ending))
"""


@pytest.fixture
def talker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that ends as its last argument says."""
    (tmp_path / "talker.py").write_text(TALKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "talker"


def test_sources_options_and_the_exit_code_pass(talker: str, tmp_path: Path) -> None:
    source = Source(name="bot", folder=tmp_path)
    before = signal.getsignal(signal.SIGINT)
    assert talking.run(talker, [source, source], ["--seed=1", "2"]) == 2
    assert signal.getsignal(signal.SIGINT) is before
    told = json.loads((tmp_path / "told").read_text())
    assert told == [f"--source={source.to_json()}"] * 2 + ["--seed=1", "2"]


@pytest.mark.parametrize(("name", "advice"), [("SIGKILL", "ran out of memory"), ("SIGABRT", "SLIPWAY_DEBUG")])
def test_a_process_that_was_killed(talker: str, name: str, advice: str) -> None:
    with pytest.raises(ClusterError, match=f"{name} killed the process.*{advice}"):
        talking.run(talker, [], [name])


def test_control_c_is_not_ignored_there(talker: str) -> None:
    with pytest.raises(ClusterError, match="SIGINT"):
        talking.run(talker, [], ["SIGINT"])


@pytest.mark.parametrize(("form", "advice"), [("gguf", "make gguf"), ("folder", "make setup")])
def test_missing_libraries(form: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options: dict[str, Any] = {form: tmp_path}
    with pytest.raises(UserError, match=advice):
        talking.require_libraries(Source(name="bot", **options))
