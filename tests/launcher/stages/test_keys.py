"""What changes a stage's key, and what does not: a key that changes too often repeats work, one that changes
too seldom takes stale results."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from launcher.machine import Machine
from tests.launcher.plans import EIGHT_H100, GIB, JOB, LAPTOP, fixed_code, make_plan, write_job, write_model

DATA, MODEL, PREPARE, TRAIN = StageKind.DATA, StageKind.MODEL, StageKind.PREPARE, StageKind.TRAIN
MERGE, PREDICT, QUANTIZE = StageKind.MERGE, StageKind.PREDICT, StageKind.QUANTIZE
GGUF, PUBLISH = StageKind.GGUF, StageKind.PUBLISH
#: Of a plan without further products. The image is a cluster's stage alone, and no input of any other
#: (tests/launcher/planning).
EVERY = {DATA, MODEL, PREPARE, TRAIN, MERGE, PREDICT}


def keys(plan: Plan) -> dict[StageKind, str]:
    return {stage.kind: stage.key for stage in plan.stages}


def changed(before: Plan, after: Plan) -> set[StageKind]:
    """Stages of `after` that would run once `before` is complete."""
    known = keys(before)
    return {kind for kind, key in keys(after).items() if known.get(kind) != key}


@pytest.mark.parametrize(
    ("override", "runs_again"),
    [
        ("training.learning_rate=1e-3", {TRAIN, MERGE, PREDICT}),
        ("training.epochs=5", {TRAIN, MERGE, PREDICT}),
        ("training.seed=7", {TRAIN, MERGE, PREDICT}),
        ("training.global_batch_size=64", {TRAIN, MERGE, PREDICT}),
        ("training.evaluate_every=5", {TRAIN, MERGE, PREDICT}),
        ("training.precision=bf16", {TRAIN, MERGE, PREDICT}),
        ("method.rank=4", {TRAIN, MERGE, PREDICT}),
        ("strategy.type=zero2", {TRAIN, MERGE, PREDICT}),
        ("compute.workers=3", {TRAIN, MERGE, PREDICT}),  # another global batch: 33 divide by 3
        ("training.max_length=1024", {PREPARE, TRAIN, MERGE, PREDICT}),
        ("training.packing=false", {PREPARE, TRAIN, MERGE, PREDICT}),
        ("model.twin.layers=3", {MODEL, PREPARE, TRAIN, MERGE, PREDICT}),
        ("data.on_error=skip", EVERY),
        ("data.fix_spacing=true", EVERY),
        ("data.instruction=Answer briefly.", EVERY),
        ("data.shuffle=true", EVERY),
        ("data.train={path: train.jsonl, weight: 2}", EVERY),
        ("data.train={path: train.jsonl, limit: 3}", EVERY),
        ("data.train={path: train.jsonl}", set()),
        ("data.eval={path: dev.jsonl, limit: 3}", {DATA, PREPARE, TRAIN, MERGE, PREDICT}),
        ("data.test={path: test.jsonl, limit: 3}", {DATA, PREDICT}),
        ("data.test={path: test.jsonl, fix_spacing: true}", {DATA, PREDICT}),
        ("merge.max_shard_size=1GB", {MERGE, PREDICT}),
        ("predict.max_new_tokens=16", {PREDICT}),
        ("predict.limit=3", {PREDICT}),
        ("predict.base=false", {PREDICT}),
        ("compute.workers=4", set()),  # the same sequences in each step
        ("training.micro_batch_size=1", set()),
        ("training.gradient_checkpointing=true", set()),
        ("training.keep=1", set()),
        ("training.save_every=10", set()),
        ("engine=ray", set()),
        ("name=another", set()),
        ("compute.accelerator=H100-80GB", set()),
    ],
)
def test_a_change_runs_again_what_depends_on_it(
    tmp_path: Path, override: str, runs_again: set[StageKind]
) -> None:
    write_job(tmp_path, method={"type": "lora"}, model={"twin": {"layers": 2}})
    before = make_plan(tmp_path)
    after = make_plan(tmp_path, Machine(cores=8, memory_bytes=32 * GIB), override)
    assert changed(before, after) == runs_again


@pytest.mark.parametrize(
    ("override", "runs_again"),
    [
        ("quantize.bits=8", {QUANTIZE, PUBLISH}),
        ("quantize.group_size=32", {QUANTIZE, PUBLISH}),
        ("gguf.types=[q8_0]", {GGUF, PUBLISH}),
        ("predict.limit=3", {PREDICT, PUBLISH}),
        ("publish.to=hub://org/other", {PUBLISH}),
        ("publish.private=false", {PUBLISH}),
        ("merge.max_shard_size=1GB", {MERGE, QUANTIZE, GGUF, PREDICT, PUBLISH}),
        ("training.learning_rate=1e-3", {TRAIN, MERGE, QUANTIZE, GGUF, PREDICT, PUBLISH}),
    ],
)
def test_of_the_products_only_what_depends_on_a_change(
    tmp_path: Path, override: str, runs_again: set[StageKind]
) -> None:
    sections = {
        "after": ["publish", "merge", "quantize", "gguf", "predict"],
        "publish": "hub://org/bot",
        "quantize": {"bits": 4},
        "gguf": {"types": ["f16"]},
    }
    write_job(tmp_path, method={"type": "lora"}, model={"twin": {"layers": 2}}, **sections)
    before = make_plan(tmp_path)
    assert [stage.kind for stage in before.stages][4:] == [MERGE, QUANTIZE, GGUF, PREDICT, PUBLISH]
    assert changed(before, make_plan(tmp_path, LAPTOP, override)) == runs_again


def test_another_product_repeats_nothing(tmp_path: Path) -> None:
    write_job(tmp_path, method={"type": "lora"}, model={"twin": {"layers": 2}})
    before = make_plan(tmp_path)
    after = make_plan(tmp_path, LAPTOP, "after=[merge, predict, quantize]")
    assert changed(before, after) == {QUANTIZE}


def test_adding_a_stage_runs_only_that(tmp_path: Path) -> None:
    write_job(tmp_path, after=[])
    trained = make_plan(tmp_path)
    assert list(keys(trained)) == [DATA, MODEL, PREPARE, TRAIN]
    write_job(tmp_path, after=["merge"])
    merged = make_plan(tmp_path)
    assert changed(trained, merged) == {MERGE}
    write_job(tmp_path, after=["merge", "predict"])
    assert changed(merged, make_plan(tmp_path)) == {PREDICT}


@pytest.mark.parametrize(
    ("file", "runs_again"),
    [
        ("test.jsonl", {DATA, PREDICT}),  # other questions train nothing
        ("dev.jsonl", {DATA, PREPARE, TRAIN, MERGE, PREDICT}),
        ("train.jsonl", EVERY),
    ],
)
def test_other_records_run_again_what_reads_them(
    tmp_path: Path, file: str, runs_again: set[StageKind]
) -> None:
    write_job(tmp_path)
    before = make_plan(tmp_path)
    with (tmp_path / file).open("a") as stream:
        stream.write(json.dumps({"instruction": "one more?", "output": "yes"}) + "\n")
    assert changed(before, make_plan(tmp_path)) == runs_again


def test_paths_and_times_of_data_are_in_no_key(tmp_path: Path) -> None:
    write_job(tmp_path)
    before = make_plan(tmp_path)
    os.utime(tmp_path / "train.jsonl", ns=(1, 1))
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "train.jsonl", tmp_path / "moved/renamed.json")
    write_data = {**JOB["data"], "train": "moved/renamed.json"}
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, "data": write_data}))
    assert changed(before, make_plan(tmp_path)) == set()


def test_a_fresh_run_trains_again_and_repeats_nothing_else(tmp_path: Path) -> None:
    write_job(tmp_path)
    before = make_plan(tmp_path)
    fresh = make_plan(tmp_path, fresh="2026-11-21T09:00:00Z")
    assert changed(before, fresh) == {TRAIN, MERGE, PREDICT}
    assert fresh.run_id != before.run_id


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_other_code_runs_its_stage_again_and_those_that_read_it(tmp_path: Path, kind: StageKind) -> None:
    write_job(tmp_path)
    before = make_plan(tmp_path)
    after = make_plan(tmp_path, code=lambda each: f"{fixed_code(each)}{' 2' if each is kind else ''}")
    again = changed(before, after)
    assert kind in again
    assert all(each in again for each in keys(before) if _reads(before, each, kind))


def _reads(plan: Plan, kind: StageKind, source: StageKind) -> bool:
    return plan.stage(source).output in plan.stage(kind).inputs.values()


def test_code_has_no_say_in_a_model_used_in_place(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    before = make_plan(tmp_path, EIGHT_H100)
    after = make_plan(tmp_path, EIGHT_H100, code=lambda kind: fixed_code(kind) + " 2" * (kind == MODEL))
    assert changed(before, after) == set()


def test_inputs_are_the_outputs_of_the_stages_before(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = make_plan(tmp_path)
    output: dict[Any, str] = {stage.kind: stage.output for stage in plan.stages}
    assert output[TRAIN] == f"train/{plan.stage(TRAIN).key}/final"
    assert {stage.kind: stage.inputs for stage in plan.stages} == {
        DATA: {},
        MODEL: {"data": output[DATA]},
        PREPARE: {"data": output[DATA], "model": output[MODEL]},
        TRAIN: {"model": output[MODEL], "prepare": output[PREPARE]},
        MERGE: {"model": output[MODEL], "train": output[TRAIN]},
        PREDICT: {"data": output[DATA], "model": output[MODEL], "tuned": output[MERGE]},
    }


def test_without_a_merge_the_fully_trained_model_answers(tmp_path: Path) -> None:
    write_job(tmp_path, method="full", after=["predict"])
    plan = make_plan(tmp_path)
    assert plan.stage(PREDICT).inputs["tuned"] == plan.stage(TRAIN).output
