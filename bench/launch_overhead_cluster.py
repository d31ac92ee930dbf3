"""What launching on a cluster costs: from `slipway submit` to the first optimizer step, part by part, beside
a bare `kubectl apply` of an equal RayJob (`bench/peers/bare_rayjob.py`: same image, pods, model and tokens).

    python bench/launch_overhead.py --cluster NAME [--repeat 3]

Image, data, model and tokens are there (a first submit, not counted, makes them), so that both sides do the
same: start a Ray cluster and train. Medians over the repeats, which alternate. Needs kubectl.

Bar: 1.1 x the bare RayJob.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from artifacts.contract import Plan, StageKind
from artifacts.segments import read_all
from artifacts.store import ObjectMissingError, Store, open_store
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.load import load_cluster

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = REPOSITORY / "examples" / "quickstart.yaml"
PEERS = REPOSITORY / "bench" / "peers"
SETTINGS = ["training.steps=3", "after=[]"]
BARE, FIRST_STEP = "bench-bare", "bench/first-step"
LONGEST_S = 900.0

Times = dict[str, float]


class Cluster:
    """A profile, its store and its namespace."""

    def __init__(self, name: str) -> None:
        profile = load_cluster(name).value
        if not isinstance(profile, KubernetesCluster):
            sys.exit(f"{name} is no Kubernetes profile")
        os.environ.update(profile.store_environment())
        self.name, self.profile = name, profile
        self.store: Store = open_store(profile.store_uri)

    def slipway(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "launcher.cli", *arguments, "--cluster", self.name]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CI": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        context = ["--context", self.profile.context] if self.profile.context else []
        command = ["kubectl", *context, "-n", self.profile.namespace, *arguments]
        return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout


def submit(cluster: Cluster, seed: int) -> tuple[Plan, Times]:
    """Seconds after `submit` at which each part was over. A new seed trains anew, and nothing else."""
    started = time.time()
    planned = json.loads(cluster.slipway("plan", str(JOB), *options(seed), "--json"))
    times = {"validate and plan": time.time() - started}
    started = time.time()
    cluster.slipway("submit", str(JOB), *options(seed), "--detach")
    times["stage, apply"] = time.time() - started
    run_id = planned["run_id"]
    wait(lambda: rows(cluster, run_id, "train", "progress"), "the first step")
    plan = Plan.from_json(cluster.store.read_bytes(f"runs/{run_id}/plan.json"))
    placed = pods(cluster, plan, started)  # while they are there
    wait(lambda: rows(cluster, run_id, "run", "finished"), "the run")
    train = rows(cluster, run_id, "train")
    times["pilot drives"] = at(rows(cluster, run_id, "run"), "started") - started
    times.update(placed)
    times["entrypoint runs"] = at(train, "started") - started
    steps = [row["time_s"] for row in train if row["kind"] == "progress" and row["done"] >= 1]
    times["ranks, imports, first step"] = min(steps) - started
    return plan, times


def options(seed: int) -> list[str]:
    return [word for setting in (*SETTINGS, f"training.seed={seed}") for word in ("--set", setting)]


def pods(cluster: Cluster, plan: Plan, started: float) -> Times:
    """When the last of the training's pods was scheduled, had its image, and was ready."""
    key = plan.stage(StageKind.TRAIN).key[:12]
    found = json.loads(cluster.kubectl("get", "pods", "-l", f"slipway/key={key}", "-o", "json"))["items"]
    conditions: dict[str, list[float]] = {}
    for pod in found:
        for item in pod["status"].get("conditions", ()):
            conditions.setdefault(item["type"], []).append(seconds(item["lastTransitionTime"]) - started)
    wanted = {
        "scheduled": "PodScheduled",
        "pulled, workers see the head": "Initialized",
        "Ray is up": "Ready",
    }
    return {name: max(conditions[kind]) for name, kind in wanted.items() if kind in conditions}


def bare(cluster: Cluster, plan: Plan, seed: int) -> float:
    """Seconds from `kubectl apply` to the first step of the RayJob written by hand."""
    rendered = yaml.safe_load_all(cluster.slipway("render", str(JOB), *options(seed), "--stage", "train"))
    job = next(body for body in rendered if body["kind"] == "RayJob")
    files = {path.name: path.read_text() for path in (PEERS / "bare_training.py", PEERS / "bare_rayjob.py")}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": BARE},
        "data": {**files, "plan.json": plan.to_json().decode()},
    }
    cluster.store.delete(FIRST_STEP)
    cluster.kubectl("delete", "rayjob,configmap", BARE, "--ignore-not-found", "--wait")
    text = yaml.safe_dump_all([config, by_hand(job, plan, cluster.store.uri)])
    started = time.time()
    cluster.kubectl("apply", "-f", "-", text=text)
    wait(lambda: first_step(cluster.store), "the bare RayJob")
    took = first_step(cluster.store) - started
    cluster.kubectl("delete", "rayjob,configmap", BARE, "--wait")
    return took


def by_hand(rendered: dict[str, Any], plan: Plan, store_uri: str) -> dict[str, Any]:
    """The same pods with the peer's script in place of the stage."""
    job = json.loads(json.dumps(rendered).replace(f"slipway-plan-{plan.run_id}", BARE))
    train = plan.stage(StageKind.TRAIN)
    arguments = [str(train.params.world_size), store_uri, train.inputs["model"], train.inputs["prepare"]]
    files = "/etc/slipway"
    words = ["python", f"{files}/bare_rayjob.py", *arguments, f"{files}/plan.json", FIRST_STEP]
    job["metadata"] = {"name": BARE}
    job["spec"]["entrypoint"] = " ".join(words)
    return job


def first_step(store: Store) -> float:
    try:
        return float(store.read_bytes(FIRST_STEP))
    except ObjectMissingError:
        return 0.0


def rows(cluster: Cluster, run_id: str, stage: str, kind: str = "") -> list[dict[str, Any]]:
    found = read_all(cluster.store, f"runs/{run_id}/events")
    return [row for row in found if row["stage"] == stage and kind in ("", row["kind"])]


def at(found: list[dict[str, Any]], kind: str) -> float:
    return float(min(row["time_s"] for row in found if row["kind"] == kind))


def seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp()


def wait(met: Any, what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not met():
        if time.monotonic() > deadline:
            sys.exit(f"{what} took longer than {LONGEST_S:.0f} s")
        time.sleep(1.0)


def measure(name: str, repeat: int) -> None:
    cluster = Cluster(name)
    base = int(time.time()) % 10**6
    submit(cluster, base)  # makes what both sides then have
    parts: list[Times] = []
    peers: list[float] = []
    for number in range(1, repeat + 1):
        plan, times = submit(cluster, base + number)
        parts.append(times)
        peers.append(bare(cluster, plan, base + number))
    print(f"{'seconds after submit, median of ' + str(repeat):44} {'at':>8}")
    for part in parts[0]:
        print(f"{part:44} {statistics.median(times[part] for times in parts if part in times):8.2f}")
    first = statistics.median(times["ranks, imports, first step"] for times in parts)
    peer = statistics.median(peers)
    print(f"\n{'to the first step':44} {'seconds':>8} {'x bare':>8}")
    print(f"{'bare RayJob, from kubectl apply':44} {peer:8.2f} {1:8.2f}")
    print(f"{'slipway, from submit':44} {first:8.2f} {first / peer:8.2f}")
