"""Every bad job, profile and path gets its message, at its place, and nothing else."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from launcher import cli
from launcher.errors import UserError
from launcher.spec.load import load_cluster, load_job
from tests.launcher.bad_inputs import BAD_INPUTS, BadInput

CASES = pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: case.name)


@pytest.fixture
def folder(case: BadInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the case's files in it."""
    case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@CASES
@pytest.mark.timeout(30)
def test_loader(case: BadInput, folder: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_job(case.job, case.overrides)
        load_cluster(case.cluster)
    problems = raised.value.problems
    assert len(problems) == len(case.expected), raised.value
    for problem, (where, *fragments) in zip(problems, case.expected, strict=True):
        assert problem.where == where
        for fragment in fragments:
            assert fragment in str(problem)
    assert not case.hidden or case.hidden not in str(raised.value)


@CASES
@pytest.mark.timeout(30)
def test_command_line(case: BadInput, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through the commands: exit code 2, no traceback, nothing written."""
    before = sorted(folder.rglob("*"))
    overrides = [word for text in case.overrides for word in ("--set", text)]
    for command in ("plan", "submit"):
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stdout", printed)
        monkeypatch.setattr(sys, "stderr", printed)
        monkeypatch.setattr(
            sys, "argv", ["slipway", command, case.job, "--cluster", case.cluster, *overrides]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        text = printed.getvalue()
        for fragment in (fragment for problem in case.expected for fragment in problem):
            assert fragment in text
        assert "Traceback" not in text
        assert not case.hidden or case.hidden not in text
        assert sorted(folder.rglob("*")) == before


def test_names_differ() -> None:
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS)
