"""`slipway compare`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from launcher.cli import app
from launcher.errors import UserError
from launcher.spec.cluster import LocalCluster
from tests.launcher.compare.compared import OTHER_ID, write_pair
from tests.launcher.synthetic_run import RUN_ID, write_run


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    write_pair(tmp_path / "store")
    return profile(tmp_path, "here", "store")


def profile(folder: Path, name: str, store: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"backend: local\nstore: {folder / store}\nwork: {folder / 'work'}\n")
    return path


def compare(*argv: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, argv)])


def test_table(cluster: Path) -> None:
    shown = compare(RUN_ID, OTHER_ID[:14], "-c", cluster)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"A  {RUN_ID}  complete\n")
    assert "training.learning_rate  0.002  0.001" in shown.stdout


def test_page_and_json(cluster: Path, tmp_path: Path) -> None:
    target = tmp_path / "compared.html"
    assert compare(RUN_ID, OTHER_ID, "-c", cluster, "--output", target).stdout == f"{target}\n"
    assert "<title>harbour-bot · A / B compared</title>" in target.read_text()
    made = json.loads(compare(RUN_ID, OTHER_ID, "-c", cluster, "--json", "-o", target).stdout)
    assert [run["run"] for run in made["runs"]] == [RUN_ID, OTHER_ID]
    assert made["page"] == str(target)


def test_a_run_of_another_cluster(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its store's settings hold while it is read, and no longer."""
    monkeypatch.setattr(LocalCluster, "store_environment", lambda profile: {"AWS_REGION": profile.store})
    write_run(tmp_path / "elsewhere")
    there = profile(tmp_path, "there", "elsewhere")
    before = dict(os.environ)
    shown = compare(RUN_ID, f"{RUN_ID}@{there}", "-c", cluster)
    assert shown.exit_code == 0, shown.output
    assert f"B  {RUN_ID} on {there}  complete" in shown.stdout
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("runs", "what"),
    [
        ((RUN_ID,), "one run alone"),
        ((RUN_ID, "harbour-bot-1a"), "is named twice"),
        ((RUN_ID, "nobody"), "run nobody"),
    ],
)
def test_mistakes(cluster: Path, runs: tuple[str, ...], what: str) -> None:
    failed = compare(*runs, "-c", cluster)
    assert isinstance(failed.exception, UserError)
    assert what in str(failed.exception)


def test_a_page_that_can_not_be_written(cluster: Path, tmp_path: Path) -> None:
    failed = compare(RUN_ID, OTHER_ID, "-c", cluster, "-o", tmp_path / "no" / "page.html")
    assert isinstance(failed.exception, UserError)
    assert "no such file or directory" in str(failed.exception)
