"""Where runs' ways part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from artifacts.contract import ModelParams, StageKind
from launcher.compare.origins import origins, partings
from launcher.compare.runs import Run
from tests import plan_parts
from tests.launcher.compare.compared import pair


def with_stage(run: Run, kind: StageKind, **changes: Any) -> Run:
    plan = run.facts.plan
    stages = [dataclasses.replace(s, **changes) if s.kind is kind else s for s in plan.stages]
    return dataclasses.replace(
        run, facts=dataclasses.replace(run.facts, plan=dataclasses.replace(plan, stages=stages))
    )


def reasons(runs: list[Run]) -> dict[str, list[str]]:
    return {row.stage: row.reasons for row in partings(runs)}


def test_ways_part_at_the_stage_whose_parameters_differ(tmp_path: Path) -> None:
    assert reasons(pair(tmp_path)) == {
        "data": [""],
        "model": [""],
        "prepare": [""],
        "train": ["other learning_rate"],
        "merge": ["from another train"],
        "predict": ["from another merge and train"],
    }


def test_the_same_parameters_and_inputs_with_another_key_are_another_code(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    other = with_stage(first, StageKind.PREPARE, key="ee" * 8)
    assert reasons([first, other])["prepare"] == ["other code or libraries"]
    assert [row.whys for row in partings([first, other]) if row.stage == "prepare"] == [["code"]]


def test_other_code_that_made_the_same_files(tmp_path: Path) -> None:
    """As after a change of a stage's code that changes nothing of what it makes."""
    first, second = pair(tmp_path)
    (row,) = [
        row
        for row in partings([first, with_stage(second, StageKind.MODEL, key="ee" * 8)])
        if row.stage == "model"
    ]
    assert row.told(0) == "other code or libraries, the same files"
    assert not row.code_matters
    made = {**second.facts.manifests, "model": second.facts.manifests["predict"]}
    second = dataclasses.replace(second, facts=dataclasses.replace(second.facts, manifests=made))
    (row,) = [
        row
        for row in partings([first, with_stage(second, StageKind.MODEL, key="ee" * 8)])
        if row.stage == "model"
    ]
    assert row.code_matters


def test_a_stage_of_one_run_only(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    plan = second.facts.plan
    fewer = dataclasses.replace(plan, stages=plan.stages[:-1])
    second = dataclasses.replace(second, facts=dataclasses.replace(second.facts, plan=fewer))
    assert reasons([first, second])["predict"] == ["only in one"]


def test_the_same_bytes_under_another_name_are_the_same_data(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    params = first.facts.plan.stage(StageKind.DATA).params
    (file,) = params.splits["train"]

    def with_train(**changes: Any) -> Run:
        splits = {**params.splits, "train": [dataclasses.replace(file, **changes)]}
        return with_stage(first, StageKind.DATA, params=dataclasses.replace(params, splits=splits))

    moved = origins([first, with_train(path="/elsewhere/new.jsonl")])[0]
    assert (moved.label, moved.same) == ("train data", True)
    other = origins([first, with_train(sha256="cd" * 32)])[0]
    assert not other.same
    assert other.values == ["train.jsonl (abababab)", "train.jsonl (cdcdcdcd)"]


def test_every_model_that_came_in(tmp_path: Path) -> None:
    """The base, an adapter that was trained elsewhere, and the unquantized original."""
    runs = []
    for run, digest in zip(pair(tmp_path), ("aa" * 32, "bb" * 32), strict=True):
        adapter = ModelParams(source="folder", location="/home/me/adapter", sha256=digest)
        stage = plan_parts.stage(StageKind.ADAPTER, adapter, digest[:16])
        plan = dataclasses.replace(run.facts.plan, stages=[*run.facts.plan.stages, stage])
        runs.append(dataclasses.replace(run, facts=dataclasses.replace(run.facts, plan=plan)))
    models = [(row.label, row.values, row.same) for row in origins(runs) if row.kind == "model"]
    assert models == [
        ("base model", ["tiny qwen3 twin (3f3a9c07d2b4)"] * 2, True),
        ("adapter", ["adapter (aaaaaaaa)", "adapter (bbbbbbbb)"], False),
    ]


def test_libraries_are_told_where_the_training_recorded_them(tmp_path: Path) -> None:
    runs = []
    for run, version in zip(pair(tmp_path), ("2.14.0", "2.15.0"), strict=True):
        made = dict(run.facts.manifests)
        made["train"] = dataclasses.replace(made["train"], facts={"versions": {"torch": version}})
        runs.append(dataclasses.replace(run, facts=dataclasses.replace(run.facts, manifests=made)))
    assert [(row.values, row.same) for row in origins(runs) if row.label == "torch"] == [
        (["2.14.0", "2.15.0"], False)
    ]
