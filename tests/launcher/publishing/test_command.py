"""`slipway publish` and `slipway status` as processes, against the stand-in of a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from tests.launcher.publishing import runs, stand_in
from tests.launcher.publishing.stand_in import StandIn
from tests.launcher.synthetic_run import RUN_ID

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.products


@pytest.fixture
def slipway(hub: StandIn, tmp_path: Path):
    """Runs a command on a finished run; returns the process and what it printed."""
    runs.make(tmp_path / "store")
    profile = tmp_path / "here.yaml"
    profile.write_text(f"backend: local\nstore: {tmp_path / 'store'}\nwork: {tmp_path / 'work'}\n")

    def run(*arguments: str, token: str = stand_in.WRITER) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
        environment |= {"HF_TOKEN": token, "COLUMNS": "200"}
        command = [sys.executable, "-P", "-m", "launcher.cli", *arguments, "--cluster", str(profile)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run


def test_a_finished_run_is_published_and_its_address_told(slipway, hub: StandIn, tmp_path: Path) -> None:
    done = slipway("publish", RUN_ID, "--to", "hub://org/bot", "--product", "model", "--product", "gguf")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/org/bot" in done.stdout
    assert hub.contents("org/bot")["model.safetensors"] == runs.WEIGHTS
    status = slipway("status", "harbour-bot")
    assert f"{hub.url}/org/bot" in status.stdout, status.stdout
    before = len(hub.requests)
    again = slipway("publish", RUN_ID, "--to", "hub://org/bot", "--product", "model", "--product", "gguf")
    assert again.returncode == 0 and "every stage is complete" in again.stderr
    assert len(hub.requests) == before  # nothing to do, nobody asked
    (record,) = (tmp_path / "store" / StageKind.PUBLISH.folder).iterdir()
    told = json.loads((record / "published.json").read_text())
    assert told["address"] == f"{hub.url}/org/bot"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or stand_in.WRITER.encode() not in path.read_bytes(), path
    assert stand_in.WRITER not in done.stdout + done.stderr + status.stdout


def test_without_a_token_nothing_begins(slipway, hub: StandIn, tmp_path: Path) -> None:
    runs_before = {path.name for path in (tmp_path / "store/runs").iterdir()}
    refused = slipway("publish", RUN_ID, "--to", "hub://org/bot", token="")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: publish to hub://org/bot: there is no token for the hub; set HF_TOKEN"
    )
    assert {path.name for path in (tmp_path / "store/runs").iterdir()} == runs_before
    assert not hub.repositories
