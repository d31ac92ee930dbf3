from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind, TrainParams
from launcher.digests import Digests
from launcher.errors import UserError
from launcher.machine import Gpu, Machine
from launcher.plan import make
from launcher.planning import text as plan_text
from launcher.spec.load import load_cluster, load_job
from tests.launcher.plans import (
    EIGHT_H100,
    GIB,
    H100,
    LAPTOP,
    QWEN3_8B,
    assert_golden,
    make_plan,
    reasons,
    write_job,
    write_model,
)

ROOT = Path(__file__).parents[2]


def train_params(plan: Plan) -> TrainParams:
    params: TrainParams = plan.stage(StageKind.TRAIN).params
    return params


def problems(folder: Path, machine: Machine = LAPTOP, **sections: Any) -> list[str]:
    write_job(folder, **sections)
    with pytest.raises(UserError) as refused:
        make_plan(folder, machine)
    return [str(problem) for problem in refused.value.problems]


@pytest.fixture
def canonical(tmp_path: Path) -> Plan:
    """A plan on 8 GPUs as it would be in /home/me/jobs."""
    write_model(tmp_path / "qwen3-8b")
    write_job(tmp_path, model={"folder": "qwen3-8b"}, training={"epochs": 2})
    text = make_plan(tmp_path, EIGHT_H100).to_json().decode()
    return Plan.from_json(text.replace(str(tmp_path), "/home/me/jobs"))


def test_golden_plan(canonical: Plan) -> None:
    text = plan_text.to_json(canonical, {StageKind.DATA})
    assert_golden("plan.json", json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n")


def test_golden_text(canonical: Plan) -> None:
    assert_golden("plan.txt", plan_text.render(canonical, {StageKind.DATA, StageKind.MODEL}))


def test_text_keeps_to_its_width_and_leaves_nothing_out(canonical: Plan) -> None:
    narrow = plan_text.render(canonical, set(), width=80)
    assert max(map(len, narrow.splitlines())) <= 96  # the widest columns and 30 for the reason
    words = " ".join(narrow.split())
    for derived in canonical.derived:
        assert derived.reason in words


def test_the_plan_survives_its_json_and_is_the_same_every_time(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = make_plan(tmp_path)
    assert Plan.from_json(plan.to_json()) == plan
    assert make_plan(tmp_path).digest == plan.digest


def test_json_tells_which_stages_are_complete(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = make_plan(tmp_path)
    value = json.loads(plan_text.to_json(plan, [StageKind.DATA]))
    assert value["run_id"] == plan.run_id
    assert [stage["complete"] for stage in value["stages"]] == [True, False, False, False, False, False]


def test_world_size_arithmetic(tmp_path: Path) -> None:
    write_job(tmp_path, training={"global_batch_size": 32, "micro_batch_size": 4, "max_length": 128})
    plan = make_plan(tmp_path)
    params = train_params(plan)
    assert (params.micro_batch_size, params.gradient_accumulation_steps, params.world_size) == (4, 4, 2)
    value, reason = reasons(plan)["training.gradient_accumulation_steps"]
    assert (value, reason) == (4, "32 sequences = 4 per worker × 4 accumulation × 2 workers")


def test_a_global_batch_in_tokens(tmp_path: Path) -> None:
    write_job(tmp_path, training={"global_batch_tokens": 10_000, "max_length": 256})
    params = train_params(make_plan(tmp_path))
    assert params.sequences_per_step == 38
    assert "9,728 tokens" in reasons(make_plan(tmp_path))["training.global_batch_size"][1]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (LAPTOP, {"world_size": 2, "precision": "fp32", "strategy": "ddp", "accelerator": None}),
        (Machine(cores=1, memory_bytes=8 * GIB), {"world_size": 1, "precision": "fp32", "strategy": "ddp"}),
        (
            EIGHT_H100,
            {
                "world_size": 8,
                "precision": "bf16",
                "strategy": "ddp",
                "accelerator": "H100-80GB",
                "peak_flops_per_second": 989.5e12,
            },
        ),
        (
            Machine(8, 64 * GIB, (Gpu("Tesla T4", 15 * GIB, (7, 5)),)),
            {"world_size": 1, "precision": "fp32", "accelerator": "T4-16GB", "peak_flops_per_second": 8.1e12},
        ),
        (
            Machine(8, 64 * GIB, (Gpu("NVIDIA Brand New", 15 * GIB, None),) * 2),
            {"world_size": 2, "precision": "bf16", "accelerator": None, "peak_flops_per_second": None},
        ),
    ],
    ids=["laptop", "one core", "8 × H100", "T4", "unknown GPU"],
)
def test_the_same_job_on_other_machines(tmp_path: Path, machine: Machine, expected: dict[str, Any]) -> None:
    write_job(tmp_path)
    params = train_params(make_plan(tmp_path, machine))
    assert {name: getattr(params, name) for name in expected} == expected


def test_defaults_follow_the_method(tmp_path: Path) -> None:
    write_job(tmp_path)
    lora = train_params(make_plan(tmp_path))
    assert lora.lora is not None and (lora.lora.alpha, lora.learning_rate, lora.epochs) == (32, 2e-4, 3)
    write_job(tmp_path, method="full", training={"steps": 10, "warmup_steps": 2})
    full = train_params(make_plan(tmp_path))
    assert (full.lora, full.learning_rate, full.epochs, full.steps) == (None, 2e-5, None, 10)
    assert (full.warmup_steps, full.warmup_share) == (2, None)


def test_what_the_job_says_is_not_derived(tmp_path: Path) -> None:
    training = {
        "epochs": 1,
        "learning_rate": 1e-4,
        "warmup_share": 0,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "precision": "bf16",
        "gradient_checkpointing": False,
    }
    write_job(
        tmp_path,
        training=training,
        method={"type": "lora", "alpha": 8},
        strategy="ddp",
        compute={"workers": 2},
        engine="torchrun",
        after=["merge"],
    )
    named = {name for name in reasons(make_plan(tmp_path)) if not name.startswith(("data.", "memory."))}
    assert named == {"training.gradient_accumulation_steps", "attention"}


@pytest.mark.parametrize(
    ("sections", "after"),
    [
        ({}, ["merge", "predict"]),
        ({"data": {"train": "train.jsonl"}}, ["merge"]),
        ({"after": []}, []),
        ({"after": ["predict", "merge"]}, ["merge", "predict"]),
        ({"after": ["predict"]}, ["merge", "predict"]),  # lora: what answers is the merged model
        ({"after": ["predict"], "method": "full"}, ["predict"]),
    ],
)
def test_stages_after_training(tmp_path: Path, sections: dict[str, Any], after: list[str]) -> None:
    write_job(tmp_path, **sections)
    plan = make_plan(tmp_path)
    assert [stage.kind for stage in plan.stages][4:] == after
    assert plan.job["after"] == after


def test_the_resolved_job_is_a_job_that_says_everything(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = make_plan(tmp_path)
    write_job(tmp_path, **plan.job)
    again = make_plan(tmp_path)
    assert [stage.key for stage in again.stages] == [stage.key for stage in plan.stages]
    assert again.job == plan.job


@pytest.mark.parametrize(
    ("sections", "machine", "said"),
    [
        (
            {"training": {"global_batch_size": 31}},
            LAPTOP,
            "training.global_batch_size: 31: 31 sequences do not divide into 2 workers; use 30 or 32, or "
            "compute.workers: 1",
        ),
        (
            {"training": {"global_batch_tokens": 300, "max_length": 256}},
            LAPTOP,
            "a step is 2 sequences × 256 tokens at least; use 512 or more",
        ),
        ({"training": {"precision": "fp16"}}, LAPTOP, "fp16 needs a GPU; use bf16, fp32 or auto"),
        (
            {"training": {"precision": "bf16"}},
            Machine(8, 64 * GIB, (Gpu("Tesla T4", 15 * GIB, (7, 5)),)),
            "Tesla T4 has no bfloat16",
        ),
        ({"compute": {"workers": 9}}, EIGHT_H100, "this machine has 8 GPUs, and each worker needs one"),
        (
            {"compute": {"memory": "20Gi"}},
            LAPTOP,
            "compute.memory: 20Gi: 2 workers want 42.9 GB, this machine has 34.4 GB; lower it",
        ),
        ({"compute": {"accelerator": "H1OO"}}, LAPTOP, "no such GPU type in the catalog; one of B200"),
        (
            {"method": {"type": "lora", "target_modules": ["q_proj", "lm_head"]}},
            LAPTOP,
            "embed_tokens and lm_head are one matrix",
        ),
    ],
)
def test_impossible_values_are_refused_at_their_place(
    tmp_path: Path, sections: dict[str, Any], machine: Machine, said: str
) -> None:
    (text,) = problems(tmp_path, machine, **sections)
    assert said in text and text.startswith(f"{tmp_path}/job.yaml:")
    assert not (tmp_path / "work").exists() and not (tmp_path / "store").exists()


def test_a_model_is_held_against_its_config_and_the_memory(tmp_path: Path) -> None:
    write_model(tmp_path / "model", {**QWEN3_8B, "max_position_embeddings": 1024})
    (too_long,) = problems(tmp_path, EIGHT_H100, model={"folder": "model"})
    assert "training.max_length: 2048: the model has 1,024 positions; use 1024 or less" in too_long
    training = {"max_length": 512}
    (too_large,) = problems(tmp_path, model={"folder": "model"}, method="full", training=training)
    assert "does not fit: ddp needs at least" in too_large and "--rehearse" in too_large


def test_the_plan_keeps_within_the_memory_that_the_job_allows(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    job = {"model": {"folder": "model"}, "training": {"max_length": 512, "precision": "bf16"}}
    write_job(tmp_path, **job, compute={"workers": 1})
    make_plan(tmp_path)
    (too_large,) = problems(tmp_path, **job, compute={"workers": 1, "memory": "12Gi"})
    assert "does not fit: ddp needs at least" in too_large and "of this machine's 12.9 GB" in too_large


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": 3}\n')
    found = problems(
        tmp_path,
        data={"train": "broken.jsonl", "eval": "missing.jsonl"},
        model={"hub": "Qwen/Qwen3-8B"},
        training={"global_batch_size": 31, "precision": "fp16"},
        compute={"accelerator": "GTX"},
    )
    for part in (
        "broken.jsonl: record 2 (line 2",
        "1 bad records beside 1 good ones; mend them, or write data.on_error: skip",
        "data.eval: ",
        "model.hub: Qwen/Qwen3-8B",
        "training.global_batch_size: 31",
        "training.precision: fp16",
        "compute.accelerator: GTX",
    ):
        assert any(part in text for text in found), part


def test_bad_records_to_be_skipped_are_counted(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": 3}\n')
    write_job(tmp_path, data={"train": "broken.jsonl", "on_error": "skip"})
    reason = reasons(make_plan(tmp_path))["data.train.format"][1]
    assert reason.endswith("format alpaca (detected), 1 records, 1 bad ones to be skipped")


@pytest.mark.parametrize("source", ["twin", "folder", "hub"])
def test_a_rehearsal_is_the_same_job_made_small(tmp_path: Path, source: str) -> None:
    models: dict[str, dict[str, Any]] = {
        "twin": {"twin": {}},
        "folder": {"folder": "model"},
        "hub": {"hub": "Qwen/Qwen3-8B", "revision": "0" * 40},
    }
    write_model(tmp_path / "model")
    training = {"epochs": 3, "max_length": 8192, "warmup_steps": 100, "precision": "fp16"}
    write_job(
        tmp_path,
        name="a-name-of-just-thirty-letters0",
        model=models[source],
        training=training,
        strategy="zero3",
        compute={"workers": 64, "accelerator": "H100-80GB"},
    )
    plan = make_plan(tmp_path, rehearse=True, environment={"HF_HOME": str(tmp_path)})
    assert plan.name == "a-name-of-just-thirt-rehearsal"
    params = train_params(plan)
    assert (params.method, params.strategy, params.world_size) == ("lora", "zero3", 2)
    assert (params.steps, params.epochs, params.max_length) == (8, None, 256)
    assert plan.stage(StageKind.DATA).params.limit_records == 64
    model = plan.stage(StageKind.MODEL).params
    assert model.source == "twin" and model.twin is not None and model.twin.layers == 2
    assert model.twin_of == (None if source == "twin" else source)
    assert plan.stage(StageKind.PREDICT).params.limit_records == 8


@pytest.mark.parametrize(
    ("machine", "workers", "precision"),
    [
        (Machine(1, 8 * GIB), 1, "bf16"),
        (Machine(8, 64 * GIB, (Gpu("Tesla T4", 15 * GIB, (7, 5)),)), 1, "fp32"),
        (EIGHT_H100, 2, "bf16"),
    ],
)
def test_a_rehearsal_needs_no_more_than_there_is(
    tmp_path: Path, machine: Machine, workers: int, precision: str
) -> None:
    write_job(tmp_path, compute={"workers": 16}, training={"precision": "bf16"})
    params = train_params(make_plan(tmp_path, machine, rehearse=True))
    assert (params.world_size, params.precision) == (workers, precision)


def test_plans_without_network_or_training_stack(tmp_path: Path) -> None:
    """Blocked: sockets, torch, ray, transformers; and what would slow a plan down is not imported."""
    write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"}, data={"train": "train.jsonl"})
    (tmp_path / "local.yaml").write_text(f"backend: local\nstore: {tmp_path}/store\nwork: {tmp_path}/work\n")
    program = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the planner used the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
sys.modules.update(dict.fromkeys(["torch", "ray", "transformers", "datasets"]))
from launcher import plan
from launcher.planning import text as plan_text
from launcher.machine import Gpu, Machine
from launcher.spec.load import load_cluster, load_job
machine = Machine(8, 64 * 2**30, (Gpu("NVIDIA H100 80GB HBM3", 80 * 10**9),))
made = plan.make(load_job("{tmp_path}/job.yaml"), load_cluster("{tmp_path}/local.yaml"), machine)
print(plan_text.render(made, ()))
heavy = {{"pyarrow", "huggingface_hub", "numpy", "rich", "requests", "httpx"}} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Memory of one worker" in result.stdout


def test_only_a_good_plan_remembers_digests(tmp_path: Path) -> None:
    cache = tmp_path / "work/digests.json"
    write_job(tmp_path)
    os.utime(tmp_path / "train.jsonl", ns=(1, 1))  # long unchanged
    with pytest.raises(UserError):
        make_plan(tmp_path, LAPTOP, "training.precision=fp16", digests=Digests(cache))
    assert not cache.exists()
    make_plan(tmp_path, digests=Digests(cache))
    assert cache.exists()


def test_gpus_of_different_size_count_as_the_smallest(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"})
    mixed = Machine(32, 256 * GIB, (H100, Gpu("NVIDIA L4", 22 * GIB, (8, 9))))
    total = reasons(make_plan(tmp_path, mixed))["memory.worker.total"]
    assert "of 23.6 GB on its GPU" in total[1]


def test_the_run_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"instruction": "Say yes.", "output": "yes"}\n' * 4)
    job = folder / "bot.yaml"
    job.write_text("name: bot\nmodel: {twin: {}}\ndata: {train: train.jsonl}\n")
    found = set()
    for place, name in ((tmp_path, "jobs/bot.yaml"), (folder, "bot.yaml"), (tmp_path, str(job))):
        monkeypatch.chdir(place)
        profile = tmp_path / "local.yaml"
        profile.write_text(f"backend: local\nstore: {tmp_path}/store\nwork: {tmp_path}/work\n")
        found.add(make(load_job(name), load_cluster(profile), Machine(2, 2**34)).run_id)
    assert len(found) == 1


def test_gguf_without_llama_cpp_says_what_to_run(tmp_path: Path) -> None:
    write_job(tmp_path, after=["merge", "gguf"])
    assert make_plan(tmp_path).has(StageKind.GGUF)
    with pytest.raises(UserError) as refused:
        make_plan(tmp_path, dataclasses.replace(LAPTOP, llama_cpp=False))
    (problem,) = refused.value.problems
    assert "gguf needs llama.cpp" in problem.why and "run `make gguf`" in problem.way_out
    assert not make_plan(tmp_path, dataclasses.replace(LAPTOP, llama_cpp=False), "after=[merge]").has("gguf")
