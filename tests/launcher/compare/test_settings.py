"""Settings that differ, in the words of jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from artifacts.contract import Derived
from launcher.compare.runs import Run
from launcher.compare.settings import settings, shown
from tests.launcher.compare.compared import pair, with_another


def differing(runs: list[Run]) -> dict[str, list[Any]]:
    return {row.field: row.values for row in settings(runs) if row.differs}


def changed(run: Run, **plan: Any) -> Run:
    facts = dataclasses.replace(run.facts, plan=dataclasses.replace(run.facts.plan, **plan))
    return dataclasses.replace(run, facts=facts)


def test_another_learning_rate(tmp_path: Path) -> None:
    assert differing(pair(tmp_path)) == {"training.learning_rate": [0.002, 0.001]}


def test_what_one_job_leaves_out_is_as_its_stage_took_it(tmp_path: Path) -> None:
    """The job that says nothing is no other setting, nor a blank."""
    first, second = with_another(tmp_path, other={"seed": 7})
    assert differing([first, second]) == {"training.seed": [0, 7]}
    job = first.facts.plan.job | {"training": {"epochs": 3}, "method": {"type": "lora"}}
    assert differing([changed(first, job=job), first]) == {}


def test_derived_values_count_as_settings(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    derived = [Derived(field="training.micro_batch_size", value=8, reason="as much as fits")]
    rows = {row.field: row for row in settings([first, changed(second, derived=derived)])}
    assert rows["training.micro_batch_size"].values == [4, 8]
    assert rows["training.micro_batch_size"].reasons == ["", "as much as fits"]
    assert not rows["training.micro_batch_size"].is_derived


def test_paths_names_and_memory_are_none(tmp_path: Path) -> None:
    first = pair(tmp_path)[0]
    job = first.facts.plan.job | {"name": "other", "data": {"train": "elsewhere/train.jsonl"}}
    derived = [Derived(field="memory.worker.total", value=1, reason="of 2")]
    assert differing([first, changed(first, job=job, derived=[*first.facts.plan.derived, *derived])]) == {}


def test_values_on_one_line() -> None:
    assert [shown(value) for value in (None, True, 1e-05, 3, "x", ["a", "b"], [], {"a": 1}, [1])] == [
        "–",
        "yes",
        "1e-05",
        "3",
        "x",
        "a, b",
        "none",
        '{"a": 1}',
        "[1]",
    ]
