"""Every bad job, profile and path gets its message, at its place, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import UserError
from launcher.spec.load import load_cluster, load_job
from tests.launcher.bad_inputs import BAD_INPUTS, BadInput


@pytest.mark.parametrize("case", BAD_INPUTS, ids=lambda case: case.name)
@pytest.mark.timeout(10)
def test_bad_input(case: BadInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
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
    assert raised.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_enough_cases() -> None:
    """The bar: forty, with the data files' among them; and no case twice."""
    assert len(BAD_INPUTS) >= 40
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS)
