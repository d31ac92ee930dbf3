"""What is lost when machines are: a real training whose pods are taken away, one after the other.

One job serves all: it saves every 10 steps, so a loss may cost at most these; what it comes to must equal the
same training undisturbed.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.segments import read_all
from launcher.kube import Kube, Object
from tests.cluster.conftest import Place
from tests.cluster.runs import Run, wait_until, write_job

SAVE_EVERY, STEPS = 10, 400
RUN_S = 900.0

Begin = Callable[[str], Run]


@pytest.fixture
def begin(images: Place, tmp_path: Path) -> Iterator[Begin]:
    """`begin(name)`: a training of its own (another seed) that has saved its first checkpoint."""
    begun: list[Run] = []

    def submit(name: str) -> Run:
        training = {"steps": STEPS, "save_every": SAVE_EVERY, "seed": zlib.crc32(name.encode())}
        job = write_job(tmp_path, name, training=training, strategy="fsdp", after=[])
        run = Run(images.store, images.json("submit", str(job), "--detach")["run"])
        begun.append(run)
        wait_until("a checkpoint", lambda: run.events("train", "checkpoint"), timeout_s=RUN_S)
        return run

    yield submit
    for run in begun:
        images.slipway("cancel", run.run_id, "--grace", "5", check=False)


def pods(kube: Kube, run: Run, role: str) -> list[Object]:
    """The training's pods of a role, `head` or `worker`."""
    labels = f"slipway/key={run.plan.stage(StageKind.TRAIN).key[:12]},ray.io/node-type={role}"
    return [pod for pod in kube.list("Pod", labels=labels) if "deletionTimestamp" not in pod["metadata"]]


def require_good_end(run: Run) -> None:
    """All steps were trained, and no more than a save interval twice."""
    wait_until("the run is over", run.is_over, timeout_s=RUN_S)
    assert run.events("run", "finished"), run.events("run")
    assert sorted(run.losses()) == list(range(1, STEPS + 1))
    attempts = read_steps(run)
    for earlier, later in itertools.pairwise(attempts):
        assert earlier[1] - later[0] < SAVE_EVERY, f"lost more than a save interval: {attempts}"


def read_steps(run: Run) -> list[tuple[int, int]]:
    """(first, last) step of each attempt that made one, oldest first."""
    prefix = f"train/{run.plan.stage(StageKind.TRAIN).key}/metrics"
    found: dict[int, list[int]] = {}
    for row in read_all(run.store, prefix):
        if row.get("loss") is not None:
            found.setdefault(row["attempt"], []).append(row["step"])
    return [(min(steps), max(steps)) for _, steps in sorted(found.items())]


@pytest.mark.timeout(1800)
def test_worker_deleted_then_killed(begin: Begin, kube: Kube) -> None:
    """Once with the time to save that a deleted pod has, once without."""
    run = begin("worker-gone")
    kube.delete("Pod", pods(kube, run, "worker")[0]["metadata"]["name"])
    wait_until("training goes on", lambda: len(read_steps(run)) >= 2, timeout_s=RUN_S)
    kube.delete("Pod", pods(kube, run, "worker")[0]["metadata"]["name"], grace_s=0)
    require_good_end(run)
    assert len(read_steps(run)) >= 3
    assert run.events("train", "restarted")


@pytest.mark.timeout(1800)
def test_head_deleted_and_the_pilot_with_it(begin: Begin, kube: Kube) -> None:
    run = begin("head-gone")
    pilots = kube.list("Pod", labels=f"slipway/run={run.run_id},slipway/stage=pilot")
    for pod in (*pods(kube, run, "head"), *pilots):
        kube.delete("Pod", pod["metadata"]["name"], grace_s=0)
    require_good_end(run)
    assert len(run.events("run", "started")) >= 2


@pytest.mark.timeout(1800)
def test_queue_takes_the_training_back_and_gives_it_again(begin: Begin, kube: Kube, images: Place) -> None:
    """As Kueue does: `spec.suspend` true, later false."""
    run = begin("suspended")
    name = f"slipway-train-{run.plan.stage(StageKind.TRAIN).key[:12]}"
    kube.patch("RayJob", name, {"spec": {"suspend": True}})
    wait_until("its pods are gone", lambda: not pods(kube, run, "worker"), timeout_s=180)
    wait_until("status tells", lambda: "queue" in images.slipway("status", run.run_id), timeout_s=60)
    reached = run.step()
    time.sleep(5)
    assert run.step() == reached
    kube.patch("RayJob", name, {"spec": {"suspend": False}})
    require_good_end(run)
    assert len(read_steps(run)) == 2


@pytest.mark.timeout(1800)
def test_node_of_a_worker_switched_off(
    begin: Begin, kube: Kube, settings: dict[str, str], images: Place
) -> None:
    down, up = (settings.get(f"SLIPWAY_TEST_NODE_{what}") for what in ("DOWN", "UP"))
    if not down or not up:
        pytest.skip("no commands to switch a node off and on")
    run = begin("node-off")
    head = pods(kube, run, "head")[0]["spec"]["nodeName"]
    node = next(
        pod["spec"]["nodeName"] for pod in pods(kube, run, "worker") if pod["spec"]["nodeName"] != head
    )
    try:
        subprocess.run([*shlex.split(down), node], check=True, capture_output=True, timeout=120)
        wait_until(
            "status tells", lambda: f"node {node}" in images.slipway("status", run.run_id), timeout_s=120
        )
        require_good_end(run)
    finally:
        subprocess.run([*shlex.split(up), node], check=True, capture_output=True, timeout=300)
    assert f"node {node}" in images.slipway("status", run.run_id)


@pytest.mark.timeout(900)
def test_dashboard_wants_the_token(begin: Begin, kube: Kube, images: Place) -> None:
    run = begin("dashboard")
    address = pods(kube, run, "head")[0]["status"]["podIP"]
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(f"http://{address}:8265/api/jobs/", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code in (401, 403)
