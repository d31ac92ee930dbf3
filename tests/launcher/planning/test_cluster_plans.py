"""Plans for a Kubernetes profile: the same job, its nodes, its image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from launcher.errors import UserError
from launcher.planning import text as plan_text
from launcher.planning.placement import place
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.plans import GIB, LAPTOP, assert_golden, make_plan, reasons, write_job, write_model

ROOT = Path(__file__).parents[3]
H100_NODES: dict[str, Any] = {
    "gpu": "H100-80GB",
    "gpus_per_node": 8,
    "count": 4,
    "cpus": 190,
    "memory": "1900Gi",
    "network": "efa",
    "network_devices": 32,
}
CPU_NODES: dict[str, Any] = {"cpus": 16, "memory": "64Gi"}


def write_profile(folder: Path, nodes: dict[str, Any], **fields: Any) -> Path:
    path = folder / "prod.yaml"
    values = {
        "backend": "kubernetes",
        "context": "prod",
        "store": "s3://artifacts/slipway",
        "image": {"registry": "registry.example.com/ml"},
        "work": str(folder / "work"),
        "nodes": nodes,
    }
    path.write_text(json.dumps({**values, **fields}))
    return path


def plan_on(folder: Path, nodes: dict[str, Any], *overrides: str, **fields: Any) -> Plan:
    return make_plan(folder, LAPTOP, *overrides, profile=write_profile(folder, nodes, **fields))


def problems(folder: Path, nodes: dict[str, Any], **sections: Any) -> list[str]:
    write_job(folder, **sections)
    with pytest.raises(UserError) as refused:
        plan_on(folder, nodes)
    return [str(problem) for problem in refused.value.problems]


@pytest.fixture
def canonical(tmp_path: Path) -> Plan:
    """A plan as it would be in /home/me/jobs."""
    write_model(tmp_path / "qwen3-8b")
    write_job(
        tmp_path, model={"folder": "qwen3-8b"}, method="full", strategy="zero3", compute={"workers": 16}
    )
    text = plan_on(tmp_path, H100_NODES).to_json().decode()
    return Plan.from_json(text.replace(str(tmp_path), "/home/me/jobs"))


def test_golden_plan(canonical: Plan) -> None:
    text = plan_text.to_json(canonical, None)
    assert_golden("plan-kubernetes.json", json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n")


def test_golden_text(canonical: Plan) -> None:
    complete = {StageKind.IMAGE, StageKind.DATA}
    assert_golden("plan-kubernetes.txt", plan_text.render(canonical, complete))


def test_a_store_that_does_not_answer_is_said(canonical: Plan) -> None:
    text = plan_text.render(canonical, None, unknown="no credentials")
    assert "complete stages: unknown (no credentials)" in text
    assert len(re.findall(r"^  \w+ +[0-9a-f]{12}  unknown ", text, re.M)) == len(canonical.stages)
    value = json.loads(plan_text.to_json(canonical, None))
    assert {stage["complete"] for stage in value["stages"]} == {None}


@pytest.mark.parametrize("workers", [1, 2, 8, 16, 32])
def test_workers_are_all_that_changes_to_scale(tmp_path: Path, workers: int) -> None:
    write_job(tmp_path)
    plan = plan_on(tmp_path, H100_NODES, f"compute.workers={workers}", "training.global_batch_size=64")
    params = plan.stage(StageKind.TRAIN).params
    assert (params.world_size, params.sequences_per_step) == (workers, 64)
    other = plan_on(tmp_path, H100_NODES, "compute.workers=4", "training.global_batch_size=64")
    changed = {stage.kind for stage in plan.stages if stage.key != other.stage(stage.kind).key}
    assert changed == set()  # the same training, gone on with by others


def test_the_profile_comes_back_from_the_plan(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = Plan.from_json(plan_on(tmp_path, H100_NODES, s3={"secret": "s3", "retries": 3}).to_json())
    profile = KubernetesCluster.model_validate(plan.profile)
    assert (profile.context, profile.s3.secret, profile.nodes.count) == ("prod", "s3", 4)
    assert place(16, profile).pods == 2
    assert (plan.backend, plan.engine, plan.store) == ("kubernetes", "ray", "s3://artifacts/slipway")


def test_the_image_comes_first_and_is_no_input(tmp_path: Path) -> None:
    write_job(tmp_path)
    plan = plan_on(tmp_path, CPU_NODES)
    assert [stage.kind for stage in plan.stages][:2] == [StageKind.IMAGE, StageKind.DATA]
    image = plan.stages[0]
    assert not image.inputs
    assert all(image.output not in stage.inputs.values() for stage in plan.stages)
    given = {"builder": "none", "name": f"r.example.com/ml@sha256:{'0' * 64}"}
    other = plan_on(tmp_path, CPU_NODES, image=given)
    assert other.stages[0].params.given == given["name"]
    assert [stage.key for stage in other.stages[1:]] == [stage.key for stage in plan.stages[1:]]
    assert "given, nothing to build" in plan_text.render(other, None)


def test_a_stage_has_one_key_wherever_it_runs(tmp_path: Path) -> None:
    """What is made does not depend on the cluster, so a store that both read needs it once."""
    write_job(tmp_path, compute={"workers": 2}, training={"micro_batch_size": 2})
    here, there = make_plan(tmp_path), plan_on(tmp_path, CPU_NODES)
    assert [stage.key for stage in there.stages[1:]] == [stage.key for stage in here.stages]


@pytest.mark.parametrize(
    ("nodes", "workers", "reason"),
    [
        (H100_NODES, 32, "one for each GPU of cluster prod: 4 nodes × 8 H100-80GB"),
        ({**H100_NODES, "count": None}, 8, "one for each GPU of a node: 8 × H100-80GB"),
        (CPU_NODES, 2, "cluster prod has no GPUs: 2 CPU workers"),
    ],
)
def test_workers_left_out(tmp_path: Path, nodes: dict[str, Any], workers: int, reason: str) -> None:
    write_job(tmp_path)
    assert reasons(plan_on(tmp_path, nodes))["compute.workers"] == (workers, reason)


def test_gpus_and_their_memory_come_from_the_catalog(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_job(tmp_path, model={"folder": "model"}, method="full", compute={"workers": 16})
    plan = plan_on(tmp_path, {**H100_NODES, "gpu": "NVIDIA-A100-SXM4-40GB"})
    params, found = plan.stage(StageKind.TRAIN).params, reasons(plan)
    assert (params.accelerator, params.precision, params.strategy) == ("A100-40GB", "bf16", "fsdp")
    assert found["memory.worker.total"][1] == "of 40.0 GB on its GPU"
    old = plan_on(tmp_path, {**H100_NODES, "gpu": "V100-32GB"}).stage(StageKind.TRAIN).params
    assert old.precision == "fp32"


def test_offloaded_states_are_held_against_the_memory_of_the_pods(tmp_path: Path) -> None:
    """The limit of each pod less /dev/shm, times the pods."""
    write_model(tmp_path / "model")
    write_job(
        tmp_path,
        model={"folder": "model"},
        method="full",
        strategy={"type": "zero3", "offload": "params"},
        compute={"workers": 16},
    )
    worker = {"cpus": 100, "memory": "150Gi"}
    fits = plan_on(tmp_path, {**H100_NODES, "shared_memory": "10Gi"}, resources={"worker": worker})
    total = 2 * 140 * GIB
    assert reasons(fits)["memory.host.total"][1] == f"of {total / 10**9:.1f} GB on its pods"
    (refused,) = problems_of(tmp_path, {**H100_NODES, "shared_memory": "50Gi"}, {"worker": worker})
    assert "does not fit" in refused and "of its pods' 214.7 GB" in refused


def problems_of(folder: Path, nodes: dict[str, Any], resources: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as refused:
        plan_on(folder, nodes, resources=resources)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("sections", "nodes", "said"),
    [
        (
            {"compute": {"workers": 40}},
            H100_NODES,
            "compute.workers: 40: 5 pods of 8 need 5 nodes, and cluster prod gives a job 4 (nodes.count); "
            "write 32",
        ),
        (
            {"compute": {"workers": 37}},
            H100_NODES,
            "compute.workers: 37: 37 pods of 1 need 5 nodes, and cluster prod gives a job 4 (nodes.count); "
            "write 32",
        ),
        (
            {"compute": {"workers": 400}, "training": {"global_batch_size": 400}},
            {**CPU_NODES, "count": 1},
            "compute.workers: 400: a node of cluster prod has no room for its part of so many",
        ),
        ({"engine": "torchrun"}, CPU_NODES, "engine: torchrun: torchrun starts workers on one machine"),
        (
            {"compute": {"accelerator": "A100-80GB"}},
            H100_NODES,
            "compute.accelerator: A100-80GB: cluster prod has H100-80GB; choose another cluster",
        ),
        (
            {"compute": {"accelerator": "A100-80GB"}},
            CPU_NODES,
            "compute.accelerator: A100-80GB: cluster prod has no GPUs",
        ),
        (
            {"training": {"precision": "bf16"}},
            {**H100_NODES, "gpu": "V100-32GB"},
            "training.precision: bf16: V100-32GB has no bfloat16; use fp16, fp32 or auto",
        ),
        ({"training": {"precision": "fp16"}}, CPU_NODES, "training.precision: fp16: fp16 needs a GPU"),
        (
            {"compute": {"workers": 2, "memory": "60Gi"}},
            CPU_NODES,
            "compute.memory: 60Gi: 2 workers want 128.8 GB, its pods have 107.1 GB",
        ),
    ],
)
def test_what_the_cluster_can_not_is_refused(
    tmp_path: Path, sections: dict[str, Any], nodes: dict[str, Any], said: str
) -> None:
    (text,) = problems(tmp_path, nodes, **sections)
    assert said in text and text.startswith(f"{tmp_path}/job.yaml:")


def test_flash_attention_for_gpus_that_can_not_is_told_at_its_place(tmp_path: Path) -> None:
    write_job(tmp_path)
    path = write_profile(tmp_path, {**H100_NODES, "gpu": "V100-32GB"})
    text = path.read_text().replace('"image": {', '"image": {"flash_attention": true, ')
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        make_plan(tmp_path, LAPTOP, profile=path)
    column = text.index('"flash_attention"') + 1
    (problem,) = refused.value.problems
    assert problem.where == f"{path}:1:{column}"


def test_a_folder_of_this_machine_is_uploaded_and_its_size_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    size = sum(path.stat().st_size for path in folder.iterdir())
    write_job(tmp_path, model={"folder": "model"})
    value, reason = reasons(plan_on(tmp_path, H100_NODES))["cluster.upload"]
    assert value == size and reason.startswith(f"{size} B from {folder} to the store, once")
    write_job(tmp_path, model={"hub": "Qwen/Qwen3-8B", "revision": "0" * 40})
    assert "cluster.upload" not in reasons(plan_on(tmp_path, H100_NODES))


@pytest.mark.parametrize("workers", [1, 12])
def test_gpus_that_stay_free_are_told(tmp_path: Path, workers: int) -> None:
    write_job(tmp_path, compute={"workers": workers})
    reason = reasons(plan_on(tmp_path, H100_NODES))["cluster.placement"][1]
    assert ("2 GPUs of each node stay free" in reason) is (workers == 12)


def test_a_rehearsal_takes_little_of_the_cluster(tmp_path: Path) -> None:
    write_job(tmp_path, compute={"workers": 32})
    plan = make_plan(tmp_path, LAPTOP, profile=write_profile(tmp_path, H100_NODES), rehearse=True)
    assert plan.stage(StageKind.TRAIN).params.world_size == 2
    assert reasons(plan)["cluster.placement"][0] == "1 × 2"


def test_a_plan_asks_nobody(tmp_path: Path) -> None:
    """No socket, no client of S3 or Kubernetes; a model in another store is taken at its digest."""
    store = {"store": "s3://elsewhere/merged/abc", "sha256": "a" * 64}
    write_job(tmp_path, model=store)
    path = write_profile(tmp_path, H100_NODES)
    program = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the planner used the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
sys.modules.update(dict.fromkeys(["torch", "ray", "transformers", "boto3", "botocore", "kubernetes"]))
from launcher import plan
from launcher.machine import Machine
from launcher.planning import text as plan_text
from launcher.spec.load import load_cluster, load_job
made = plan.make(load_job("{tmp_path}/job.yaml"), load_cluster("{path}"), Machine(1, 2**30))
print(plan_text.render(made, None))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Cluster prod" in result.stdout


def test_gguf_needs_an_image_with_llama_cpp(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, CPU_NODES, after=["merge", "gguf"])
    assert "after: [merge, gguf]: gguf needs llama.cpp, and the image of cluster prod is" in problem
    assert "add `gguf: true` to `image` in its profile, or leave gguf out" in problem
    images = {"registry": "registry.example.com/ml", "gguf": True}
    plan = plan_on(tmp_path, CPU_NODES, image=images)
    assert plan.stage(StageKind.IMAGE).params.gguf and plan.has(StageKind.GGUF)
    assert "llama.cpp" in plan_text.render(plan, set())
    given = {"builder": "none", "name": "registry.example.com/ml@sha256:" + "0" * 64, "gguf": True}
    assert plan_on(tmp_path, CPU_NODES, image=given).has(StageKind.GGUF)
