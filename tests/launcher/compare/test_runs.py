"""Which runs are compared, and what can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.local import LocalStore
from launcher.compare.runs import lettered, read
from launcher.errors import UserError
from launcher.reporting.collect import RunFacts
from tests.launcher.synthetic_run import RUN_ID, make_plan, write_run


def facts(run_id: str) -> RunFacts:
    return RunFacts(run_id=run_id, plan=make_plan(LocalStore(Path("none"))))


def test_all_answers_are_read(tmp_path: Path) -> None:
    assert len(read(write_run(tmp_path), RUN_ID).predictions) == 24


def test_a_plan_of_another_version(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes(f"runs/{RUN_ID}/plan.json", b'{"version": 0}')
    with pytest.raises(UserError, match="plan version 0"):
        read(store, RUN_ID)


def test_letters() -> None:
    made = lettered([("local", facts("a-1")), ("prod", facts("a-1")), ("local", facts("b-2"))])
    assert [(run.letter, run.cluster, run.run_id, run.style) for run in made] == [
        ("A", "local", "a-1", "a"),
        ("B", "prod", "a-1", "b"),
        ("C", "local", "b-2", "c"),
    ]


@pytest.mark.parametrize(
    ("names", "what"),
    [(["a"], "one run alone"), (["a", "b", "a"], "run a: is named twice"), ("abcdefghi", "9 runs")],
)
def test_what_makes_no_comparison(names: list[str], what: str) -> None:
    with pytest.raises(UserError, match=what):
        lettered([("local", facts(name)) for name in names])
