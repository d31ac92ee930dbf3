"""Pilots on the cluster: kills, races, hand-over, cancelling. Stages only pretend; all else is real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifacts.contract import Plan, StageKind
from artifacts.manifest import ArtifactWriter, is_complete
from launcher.backends import manifest
from launcher.kube import Kube, Object
from launcher.pilots.kubernetes import USER_LABEL, is_active
from launcher.pilots.progress import ANNOTATION
from launcher.stages.image import read_images
from tests.cluster.conftest import ROOT, Place, kubectl
from tests.cluster.pretending import build_pretend
from tests.cluster.runs import Run, wait_until, write_job

#: Half a minute where the nodes are not busy with something else.
RUN_S = 600.0
SMALL = {"cpus": 0.2, "memory": "256Mi"}


pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Pretended:
    """A run whose stages pretend. Its training is complete from the start: that takes no pods to show."""

    place: Place
    kube: Kube
    job: Path
    plan: Plan

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    @property
    def events(self) -> Run:
        return Run(self.place.store, self.run_id)

    @property
    def pilot(self) -> Object | None:
        return self.kube.get("Job", manifest.pilot_name(self.run_id))

    def pilot_pods(self) -> list[Object]:
        pods = self.kube.list("Pod", labels=f"slipway/run={self.run_id},slipway/stage=pilot")
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def holder(self) -> str:
        lease = self.kube.get("Lease", manifest.pilot_name(self.run_id))
        return str(lease["spec"]["holderIdentity"]) if lease else ""

    def submit(self) -> subprocess.Popen[str]:
        """As a person does, following the run."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher.cli", "submit", str(self.job)],
            cwd=self.place.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_CLUSTER": "test"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, stage: str, kind: str) -> None:
        wait_until(f"{stage} {kind}", lambda: self.events.events(stage, kind), timeout_s=RUN_S, every_s=0.5)

    def wait_for_end(self) -> None:
        def ended() -> bool:
            job = self.pilot
            return job is not None and not is_active(job)

        wait_until("the pilot has ended", ended, timeout_s=RUN_S)

    def starts(self, stage: str) -> int:
        return len(self.events.events(stage, "started"))

    def is_whole(self) -> bool:
        return all(is_complete(self.place.store, stage.output) for stage in self.plan.stages)


def plan_of(place: Place, job: Path) -> Plan:
    """As `submit` makes it there."""
    value = place.json("plan", str(job))
    value.pop("run_id")
    for stage in value["stages"]:
        stage.pop("complete")
    return Plan.from_json(json.dumps(value))


@pytest.fixture(scope="module")
def reference(place: Place) -> str:
    return build_pretend(place.profile)


@pytest.fixture
def pretended(
    make_place: Callable[..., Place], kube: Kube, reference: str, tmp_path: Path
) -> Iterator[Callable[..., Pretended]]:
    """`pretended(name, seconds)`: a run each of whose stages takes so long. What it made is removed."""
    made: list[Pretended] = []

    def make(name: str, seconds: int, image: str = reference) -> Pretended:
        stages = {kind: dict(SMALL) for kind in ("model", "prepare", "merge", "predict")}
        place = make_place(
            image={"builder": "none", "name": image},
            resources={"pilot": {"cpus": 0.2, "memory": "512Mi"}, **stages},
            environment={"PRETEND_S": str(seconds)},
        )
        job = write_job(tmp_path, name, after=[], training={"seed": seconds + len(name)})
        plan = plan_of(place, job)
        ArtifactWriter(place.store, plan.stage(StageKind.TRAIN).output).commit()
        for kind in (StageKind.MODEL, StageKind.PREPARE):  # other tests make the same
            place.store.delete(f"{plan.stage(kind).output}/COMPLETE.json")
        made.append(Pretended(place, kube, job, plan))
        return made[-1]

    yield make
    for run in made:
        run.place.slipway("cancel", run.run_id, "--grace", "1", check=False)


def test_a_run_outlives_the_laptop_and_two_submits_at_once_are_one_run(
    pretended: Callable[..., Pretended], kube: Kube
) -> None:
    run = pretended("laptop", 3)
    submits = [run.submit() for _ in range(2)]
    run.wait_for("run", "started")
    for process in submits:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.wait_for_end()
    assert run.is_whole() and run.events.events("run", "finished")
    assert (run.starts("run"), run.starts("model"), run.starts("prepare")) == (1, 1, 1)
    pilot = run.pilot
    assert pilot is not None and pilot["metadata"]["labels"].get(USER_LABEL)
    assert pilot["metadata"]["annotations"][ANNOTATION] == "complete, 5 of 5 stages complete"


def test_following_says_what_happens_and_ends_with_the_run(pretended: Callable[..., Pretended]) -> None:
    run = pretended("followed", 6)
    said, _ = run.submit().communicate(timeout=RUN_S)
    assert f"started {run.run_id} on test: model → prepare" in said
    assert re.search(r"prepare +complete", said)
    status = run.place.slipway("status", run.run_id)
    assert "complete" in status and "submitted by" in status
    rows = json.loads(run.place.slipway("runs", "--json"))
    assert next(row for row in rows if row["run_id"] == run.run_id)["user"]
    log = run.place.slipway("logs", run.run_id, "--stage", "prepare")
    assert log.splitlines()[-1] == "prepare: made" and "prepare: second 5 on " in log


@pytest.mark.parametrize("grace_s", [0, 30])
def test_a_pilot_that_is_killed_is_followed_by_another(
    pretended: Callable[..., Pretended], kube: Kube, grace_s: int
) -> None:
    """Killed at once, its lease has to expire; ended as a drained node ends it, it gives the lease up."""
    run = pretended(f"killed-{grace_s}", 25)
    run.place.slipway("submit", str(run.job), "--detach")
    run.wait_for("model", "progress")
    first = run.holder()
    kube.delete("Pod", first, grace_s=grace_s)
    began = time.monotonic()
    wait_until("another pilot drives", lambda: run.holder() not in ("", first), timeout_s=90, every_s=0.5)
    assert time.monotonic() - began < 60
    run.wait_for_end()
    assert run.is_whole() and run.events.events("run", "finished")
    assert (run.starts("run"), run.starts("model"), run.starts("prepare")) == (2, 1, 1)


def test_of_two_pilots_one_drives(pretended: Callable[..., Pretended], kube: Kube) -> None:
    """As when a lost node's pod lives on there. The second begins once the first is through."""
    run = pretended("two", 8)
    run.place.slipway("submit", str(run.job), "--detach")
    run.wait_for("model", "started")
    images = read_images(run.place.store, run.plan.stage(StageKind.IMAGE))
    assert images is not None
    other = manifest.pilot_job(run.plan, run.run_id, images)
    other["metadata"]["name"] += "-b"
    kube.create(other)

    def words() -> str:
        pods = [pod["metadata"]["name"] for pod in run.pilot_pods()]
        return "".join(kube.pod_log(name) for name in pods if "-b-" in name)

    wait_until("the second waits", lambda: f"{run.holder()} drives {run.run_id}" in words(), timeout_s=90)
    run.wait_for_end()
    wait_until("both are through", lambda: len(run.events.events("run", "finished")) == 2, timeout_s=90)
    first = run.events.events("run", "finished")[0]
    assert run.events.events("run", "started")[1]["time_s"] >= first["time_s"]
    assert (run.starts("model"), run.starts("prepare")) == (1, 1)


def test_rendered_and_applied_it_runs_without_a_launcher(pretended: Callable[..., Pretended]) -> None:
    run = pretended("rendered", 2)
    for kind in (StageKind.IMAGE, StageKind.DATA):  # other tests have staged the same
        run.place.store.delete(f"{run.plan.stage(kind).output}/COMPLETE.json")
    refused = run.place.slipway("render", str(run.job), check=False)
    assert refused == ""
    assert "| kubectl apply -f -" in run.place.slipway("stage", str(run.job))
    rendered = run.place.slipway("render", str(run.job))
    assert rendered == run.place.slipway("render", str(run.job))
    for key in ("plan.json", "references.json"):  # the pilot makes the record of a run that it finds without
        run.place.store.delete(f"runs/{run.run_id}/{key}")
    kubectl("apply", "-f", "-", input=rendered)
    run.wait_for_end()
    assert run.is_whole() and run.events.plan.run_id == run.run_id
    assert "complete" in run.place.slipway("status", run.run_id)


def test_cancelled_it_leaves_nothing_and_resumed_it_goes_on(
    pretended: Callable[..., Pretended], kube: Kube
) -> None:
    run = pretended("cancelled", 20)
    run.place.slipway("submit", str(run.job), "--detach")
    run.wait_for("model", "progress")
    assert "is drained" in run.place.slipway("cancel", run.run_id, "--grace", "20")

    def left() -> list[Object]:
        kinds = ("Job", "RayJob", "ConfigMap", "NetworkPolicy", "Lease", "Pod")
        return [body for kind in kinds for body in kube.list(kind, labels=f"slipway/run={run.run_id}")]

    wait_until("nothing is left", lambda: not left(), timeout_s=60)
    run.place.slipway("resume", run.run_id, "--detach")
    run.wait_for_end()
    assert run.is_whole() and run.events.events("run", "finished")


def test_a_pilot_without_an_image_is_told_within_15_seconds(
    pretended: Callable[..., Pretended], reference: str
) -> None:
    run = pretended("no-image", 1, image=f"{reference.partition('@')[0]}@sha256:{'0' * 64}")
    run.place.slipway("submit", str(run.job), "--detach")
    began = time.monotonic()
    wait_until(
        "the reason is named",
        lambda: "the registry has no image" in run.place.slipway("status", run.run_id),
        timeout_s=30,
        every_s=0.2,
    )
    assert time.monotonic() - began < 15
    assert "is new" in run.place.slipway("cancel", run.run_id)
    assert run.pilot is None or not is_active(run.pilot)
