"""Whole runs on the cluster, from the job file to what a person fetches."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.manifest import verify
from launcher.kube import Kube
from tests.cluster.conftest import ROOT, Place, kubectl
from tests.cluster.runs import DATA, QUICKSTART, Run, wait_until, write_job

RUN_S = 900.0


def submit(place: Place, job: Path, *options: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(
        place.slipway("submit", str(job), "--json", *options, timeout_s=RUN_S)
    )
    return result


def nodes_of_ranks(run: Run) -> dict[int, str]:
    """Rank -> node, as each rank says when it begins."""
    return {int(rank): node for rank, node in re.findall(r"rank (\d+) of \d+ on (\S+)", run.log("train"))}


def is_whole(run: Run, kind: StageKind) -> bool:
    return verify(run.store, run.plan.stage(kind).output) == []


@pytest.fixture(scope="module")
def quickstart(images: Place) -> dict[str, Any]:
    return submit(images, QUICKSTART)


def test_quickstart_comes_to_its_end(quickstart: dict[str, Any], images: Place, kube: Kube) -> None:
    run = Run(images.store, quickstart["run"])
    assert quickstart["state"] == "complete"
    assert all(is_whole(run, kind) for kind in (StageKind.TRAIN, StageKind.MERGE, StageKind.PREDICT))
    assert quickstart["scores"]["tuned"]["exact_match"] >= 80
    assert "<html" in images.store.read_bytes(f"runs/{run.run_id}/report.html").decode()
    ranks = nodes_of_ranks(run)
    assert sorted(ranks) == [0, 1]
    assert len(set(ranks.values())) == min(2, len(kube.list("Node")))


def test_losses_equal_the_local_backends(quickstart: dict[str, Any], images: Place, tmp_path: Path) -> None:
    there = Run(images.store, quickstart["run"])
    result = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "submit", str(QUICKSTART), "--cluster", "local", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    assert result.returncode == 0, result.stderr
    from artifacts.local import LocalStore

    here = Run(LocalStore(tmp_path / ".slipway/store"), json.loads(result.stdout)["run"])
    assert there.plan.stage(StageKind.TRAIN).key == here.plan.stage(StageKind.TRAIN).key
    losses, expected = there.losses(), here.losses()
    assert sorted(losses) == sorted(expected) == list(range(1, 201))
    assert max(abs(losses[step] - expected[step]) for step in losses) <= 1e-4


def test_a_run_that_is_complete_is_only_looked_at(
    quickstart: dict[str, Any], images: Place, kube: Kube
) -> None:
    again = submit(images, QUICKSTART)
    assert again["run"] == quickstart["run"]
    assert Run(images.store, again["run"]).skipped() == [
        "image", "data", "model", "prepare", "train", "merge", "predict"
    ]  # fmt: skip


def test_another_learning_rate_only_trains_again(images: Place, tmp_path: Path) -> None:
    job = write_job(tmp_path, "rates")
    first = submit(images, job)
    before = {
        info.key for prefix in ("data", "models", "prepared", "images") for info in images.store.list(prefix)
    }
    second = submit(images, job, "--set", "training.learning_rate=5e-3")
    after = {
        info.key for prefix in ("data", "models", "prepared", "images") for info in images.store.list(prefix)
    }
    assert second["run"] != first["run"]
    assert Run(images.store, second["run"]).skipped() == ["image", "data", "model", "prepare"]
    assert after == before


def test_fsdp_by_render_and_kubectl_alone(images: Place, tmp_path: Path) -> None:
    """Nothing of the launcher runs here once the objects are applied."""
    lines = (DATA / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:-1]))  # which the cluster has not seen yet
    data = {"train": str(tmp_path / "train.jsonl")}
    job = write_job(tmp_path, "by-kubectl", data=data, strategy="fsdp", method={"type": "full"})
    refused = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "render", str(job)],
        cwd=images.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_CLUSTER": "test"},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2 and "slipway stage" in refused.stderr, refused.stderr
    images.slipway("stage", str(job))
    rendered = images.slipway("render", str(job))
    kubectl("apply", "-f", "-", input=rendered)
    run_id = re.search(r"slipway-pilot-(\S+)", rendered)[1]
    run = Run(images.store, run_id)
    wait_until("the run is over", lambda: run.is_over(), timeout_s=RUN_S)
    assert run.events("run", "finished"), run.events("run")
    assert is_whole(run, StageKind.TRAIN) and is_whole(run, StageKind.PREDICT)
    assert len(nodes_of_ranks(run)) == 2


def test_zero3_with_offload_outlives_the_laptop(images: Place, tmp_path: Path) -> None:
    """Two submits at once make one run; both are killed once the pilot is there, and the run goes on."""
    strategy = {"type": "zero3", "offload": "params"}
    job = write_job(tmp_path, "laptop-gone", strategy=strategy, method={"type": "full"})
    command = [sys.executable, "-m", "launcher.cli", "submit", str(job)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_CLUSTER": "test"}
    started = [
        subprocess.Popen(
            command, cwd=images.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    run_id = images.json("plan", str(job))["run_id"]
    run = Run(images.store, run_id)
    wait_until("the run is driven", lambda: run.events("run", "started"), timeout_s=120)
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until("the run is over", lambda: run.is_over(), timeout_s=RUN_S)
    assert run.events("run", "finished"), run.events("run")
    assert len(run.events("run", "started")) == 1
    assert len(run.events("train", "started")) == 1
    assert is_whole(run, StageKind.TRAIN) and is_whole(run, StageKind.PREDICT)
    assert len(set(nodes_of_ranks(run).values())) == 2
    report = tmp_path / "report.html"
    images.slipway("fetch", run_id, "report", "--to", str(report))
    assert "laptop-gone" in report.read_text()
