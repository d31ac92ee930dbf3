"""`launcher.backends.kubernetes` over an API server in memory: what is made, attached to, replaced, removed,
told, and how seldom it asks. `tests/cluster/test_backend.py` has the same on a real one."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import DataFile, DataParams, Plan, PrepareParams, StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from launcher.backends import manifest
from launcher.backends.kubernetes import KubernetesBackend
from launcher.backends.patience import MENDABLE_S, TELL_AFTER_S
from launcher.backends.waiting import Object
from launcher.errors import ClusterError
from launcher.kube import KubeError
from launcher.stages.image import Images
from launcher.status import Done, Fail, Retry, decide
from tests import plan_parts
from tests.launcher.backends.api_answers import answer

#: A little before the recorded objects were made (Unix time).
MADE_S = 1_795_265_000.0 - 1000
IMAGE = f"registry/train@sha256:{'0' * 64}"
PROFILE = {
    "backend": "kubernetes",
    "store": "s3://bucket/prefix",
    "image": {"builder": "none", "name": IMAGE},
    "nodes": {"cpus": 4, "memory": "16Gi"},
}


class ApiServer:
    """Objects by kind and name. `pending_removal`: names that stay, going, when they are deleted."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.pending_removal: set[str] = set()
        self.requests: Counter[str] = Counter()
        self._uids = (f"uid-{number}" for number in itertools.count(1))

    def create(self, body: Object) -> Object:
        self.requests["create"] += 1
        key = body["kind"], body["metadata"]["name"]
        if key in self.objects:
            raise KubeError("POST", 409, "AlreadyExists", "")
        moments = {"uid": next(self._uids), "creationTimestamp": "2026-11-21T12:00:00Z"}
        self.objects[key] = {**copy.deepcopy(body), "metadata": {**body["metadata"], **moments}, "status": {}}
        return self.objects[key]

    def get(self, kind: str, name: str) -> Object | None:
        self.requests["get"] += 1
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        self.requests[f"list {kind}"] += 1
        if kind == "Pod":
            return copy.deepcopy(self.pods)
        if kind == "Event":
            return copy.deepcopy(self.events)
        return [copy.deepcopy(body) for (its, _), body in self.objects.items() if its == kind]

    def delete(self, kind: str, name: str, *, uid: str | None = None, grace_s: int | None = None) -> bool:
        there = self.objects.get((kind, name))
        if there is None or uid not in (None, there["metadata"]["uid"]):
            return False
        if name in self.pending_removal:
            there["metadata"]["deletionTimestamp"] = "2026-11-21T12:01:00Z"
        else:
            del self.objects[kind, name]
        return True

    def pod_log(self, name: str, **options: Any) -> str:
        return "a log with hf_abcdefghijklmnopqrstuv in it\n"


class Yard:
    """A run of one stage, its store, and time that stands still until it is told to go on."""

    def __init__(self, folder: Path, kind: StageKind = StageKind.PREPARE, params: Any = None) -> None:
        self.store, self.kube, self.now_s = LocalStore(folder), ApiServer(), 1000.0
        params = params or PrepareParams(max_length=64, packing=True)
        if kind == StageKind.TRAIN:
            params = plan_parts.train_params(world_size=2)
        self.stage = plan_parts.stage(kind, params, "0123456789ab".ljust(64, "0"))
        self.name = manifest.stage_name(self.stage)
        self.kind = "RayJob" if kind == StageKind.TRAIN else "Job"
        self.backend = self.another("drive-1")

    def another(self, drive: str, run: str = "") -> KubernetesBackend:
        fields: dict[str, Any] = {"engine": "ray", "backend": "kubernetes", "cluster": "test"}
        plan = Plan(
            name="bot", store="s3://bucket/prefix", stages=[self.stage], job={}, profile=PROFILE, **fields
        )
        return KubernetesBackend(
            plan,
            run or plan.run_id,
            self.store,
            self.kube,  # type: ignore[arg-type]
            Images(IMAGE, IMAGE),
            drive,
            clock=lambda: self.now_s,
            now=lambda: MADE_S + self.now_s,
        )

    @property
    def object(self) -> Object:
        return self.kube.objects[self.kind, self.name]

    def becomes(self, case: str) -> None:
        """The stage's object gets the status and the pods of a recorded case."""
        body, pods, self.kube.events = answer("ray_jobs" if self.kind == "RayJob" else "jobs", case)
        self.object["status"] = body["status"]
        for pod in pods:
            for owner in pod["metadata"].get("ownerReferences", ()):
                owner["uid"] = self.object["metadata"]["uid"]
        self.kube.pods = pods
        self.now_s += 2

    def commit(self) -> None:
        ArtifactWriter(self.store, self.stage.output).commit()


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_a_stage_from_start_to_done(yard: Yard) -> None:
    assert yard.backend.observe(yard.stage).phase == "absent"
    yard.backend.start(yard.stage)
    assert yard.object["metadata"]["annotations"][manifest.DRIVE] == "drive-1"
    yard.now_s += 2
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.commit()
    yard.becomes("complete")
    assert decide(yard.backend.observe(yard.stage)) == Done()
    assert list(yard.store.list("runs")) == []  # nothing to explain


def test_what_only_a_laptop_can_make_is_asked_for(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    data = plan_parts.stage(StageKind.DATA, DataParams(splits={}))
    with pytest.raises(ClusterError, match="slipway stage JOB --cluster test"):
        yard.backend.start(data)


def test_data_that_lies_elsewhere_is_checked_by_a_pod(tmp_path: Path) -> None:
    file = DataFile(path="s3://bucket/train.jsonl", size_bytes=0, sha256="0" * 64, format="auto")
    yard = Yard(tmp_path, StageKind.DATA, DataParams(splits={"train": [file]}))
    yard.backend.start(yard.stage)
    assert yard.object["kind"] == "Job"
    assert "launcher.stages.data_run" in json.dumps(yard.object)


def test_many_looks_are_few_requests(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("no-gpu")
    yard.kube.requests.clear()
    for _ in range(500):  # ten seconds
        yard.now_s += 0.02
        yard.backend.observe(yard.stage)
    assert yard.kube.requests["list Job"] <= 11 and yard.kube.requests["list Pod"] <= 11
    assert sum(yard.kube.requests.values()) <= 30


def test_starting_twice_makes_one(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.backend.start(yard.stage)
    other = yard.another("drive-2")
    other.start(yard.stage)
    assert yard.object["metadata"]["uid"] == "uid-1"
    yard.commit()
    yard.becomes("complete")
    assert decide(other.observe(yard.stage)) == Done()  # it saw it run: it may judge


def test_an_ended_object_of_another_drive_is_absent_and_replaced(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("exit-75")
    other = yard.another("drive-2")
    assert decide(other.observe(yard.stage)) == Retry(0.0, "not started")
    other.start(yard.stage)
    assert yard.object["metadata"]["uid"] == "uid-2"
    assert yard.object["metadata"]["annotations"][manifest.DRIVE] == "drive-2"


def test_a_pilot_that_is_replaced_judges_what_its_drive_left(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("exit-75")
    retry = decide(yard.another("drive-1").observe(yard.stage))
    assert isinstance(retry, Retry) and retry.failure == "drained"


def test_another_runs_object_is_waited_for_and_its_failure_is_no_obstacle(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    other = yard.another("drive-2", run="other-00000000")
    other.start(yard.stage)
    yard.now_s += 2
    assert other.observe(yard.stage).phase == "elsewhere"
    yard.becomes("exit-75")
    assert other.observe(yard.stage).phase == "absent"
    other.start(yard.stage)
    assert yard.object["metadata"]["labels"]["slipway/run"] == "other-00000000"
    assert yard.backend.observe(yard.stage).phase == "ended"  # its own is gone: it is told so, and goes on


def test_a_retry_waits_until_the_earlier_attempt_is_removed(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("exit-75")
    assert yard.backend.observe(yard.stage).phase == "ended"
    yard.kube.pending_removal.add(yard.name)
    yard.backend.start(yard.stage)
    observation = yard.backend.observe(yard.stage)
    assert (observation.phase, observation.note) == ("running", "waits until its earlier attempt is removed")
    del yard.kube.objects[yard.kind, yard.name]
    yard.now_s += 2
    assert yard.backend.observe(yard.stage).phase == "running"
    assert yard.object["metadata"]["uid"] == "uid-2"


def test_reasons_to_wait_are_told_once_they_last(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("no-secret")
    assert yard.backend.observe(yard.stage).note == ""
    yard.now_s += TELL_AFTER_S
    assert "Secret absent is not there" in yard.backend.observe(yard.stage).note
    yard.becomes("complete")
    yard.object["status"] = {}
    assert yard.backend.observe(yard.stage).note == ""


def test_what_nobody_mends_ends_the_stage_and_is_removed(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("no-image")
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.now_s += MENDABLE_S - 1
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.now_s += 2
    decision = decide(yard.backend.observe(yard.stage))
    assert isinstance(decision, Fail)
    assert "no image localhost:5000/nothing-here:1" in decision.reason
    assert "slipway image build" in decision.advice
    assert yard.kube.objects == {}


def test_waiting_for_nodes_has_its_limit_too(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("no-gpu")
    yard.now_s += 86_000
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.now_s += TELL_AFTER_S
    assert "no node has 9 free GPUs" in yard.backend.observe(yard.stage).note
    yard.now_s += 2000
    decision = decide(yard.backend.observe(yard.stage))
    assert isinstance(decision, Fail)
    assert "it waited for 86400 s (limits.pending_s): no node has 9 free GPUs" in decision.reason
    assert yard.kube.objects == {}


def test_a_job_on_a_lost_node_is_given_up_for_a_new_one(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("deadline-stopping")
    yard.object["status"] = {"active": 1}
    since = {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-11-21T12:50:00Z"}
    node = yard.kube.pods[0]["spec"]["nodeName"]
    yard.kube.objects["Node", node] = {"metadata": {}, "status": {"conditions": [since]}}
    yard.now_s += 600
    observation = yard.backend.observe(yard.stage)
    retry = decide(observation)
    assert isinstance(retry, Retry) and retry.failure == "node-lost"
    assert f"node {node} is not ready" in retry.reason and observation.evidence
    assert (yard.kind, yard.name) not in yard.kube.objects
    yard.backend.start(yard.stage)
    assert yard.object["metadata"]["uid"] == "uid-2"


def test_a_stage_without_pods_has_as_long(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.now_s += 90_000  # a queue may have held it: only time without pods counts
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.now_s += 86_401
    decision = decide(yard.backend.observe(yard.stage))
    assert isinstance(decision, Fail) and "its pods did not start" in decision.reason


def test_an_ending_brings_the_stages_own_words_its_log_and_evidence(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    run = yard.object["metadata"]["labels"]["slipway/run"]
    Events(yard.store, run, "prepare").say("failed", cause="record 7 is empty", advice="mend it")
    yard.becomes("exit-75")
    terminated = yard.kube.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    terminated["exitCode"] = 1
    observation = yard.backend.observe(yard.stage)
    assert decide(observation) == Fail("record 7 is empty", "mend it")
    folder = f"runs/{run}/evidence/prepare-1"
    assert observation.evidence == f"{yard.store.uri}/{folder}"
    [pod] = json.loads(yard.store.read_bytes(f"{folder}/pods.json"))
    log = yard.store.read_bytes(f"{folder}/logs/{pod['metadata']['name']}-stage.log").decode()
    assert log == "a log with [redacted] in it\n"
    assert json.loads(yard.store.read_bytes(f"{folder}/object.json"))["kind"] == "Job"
    assert json.loads(yard.store.read_bytes(f"{folder}/events.json")) == []


def test_what_is_seen_from_outside_outweighs_the_stages_words(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    run = yard.object["metadata"]["labels"]["slipway/run"]
    Events(yard.store, run, "prepare").say("failed", cause="a process was killed", advice="see the log")
    yard.becomes("memory-limit")
    decision = decide(yard.backend.observe(yard.stage))
    assert isinstance(decision, Fail)
    assert "memory limit of 64Mi" in decision.reason and "resources.prepare.memory" in decision.advice


def test_stopping_at_once_removes_it(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.backend.stop(yard.stage, grace_s=0)
    assert yard.kube.objects == {}
    assert yard.backend.observe(yard.stage).phase == "absent"


def test_a_training_has_its_grace_to_save(tmp_path: Path) -> None:
    yard = Yard(tmp_path, StageKind.TRAIN)
    yard.backend.start(yard.stage)
    yard.becomes("running")
    yard.object["status"]["jobStatus"] = "RUNNING"
    yard.backend.observe(yard.stage)
    yard.backend.stop(yard.stage, grace_s=60)
    yard.now_s += 59
    assert yard.backend.observe(yard.stage).note == "asked to save and stop"
    assert yard.kube.objects
    yard.now_s += 2
    assert yard.backend.observe(yard.stage).phase == "running"
    assert yard.kube.objects == {}
    yard.now_s += 2
    assert yard.backend.observe(yard.stage).phase == "absent"


def test_a_training_that_has_saved_is_removed(tmp_path: Path) -> None:
    yard = Yard(tmp_path, StageKind.TRAIN)
    yard.backend.start(yard.stage)
    yard.backend.stop(yard.stage, grace_s=60)
    yard.becomes("exit-75")
    assert yard.backend.observe(yard.stage).exit_code == 75
    assert yard.kube.objects == {}


def test_a_suspended_training_that_is_stopped_has_nothing_to_save(tmp_path: Path) -> None:
    yard = Yard(tmp_path, StageKind.TRAIN)
    yard.backend.start(yard.stage)
    yard.becomes("suspended")
    assert yard.backend.observe(yard.stage).note == "suspended by its queue: waits to be admitted"
    yard.now_s += 10 * MENDABLE_S  # queues may take long
    assert yard.backend.observe(yard.stage).phase == "running"
    yard.backend.stop(yard.stage, grace_s=600)
    yard.backend.observe(yard.stage)
    assert yard.kube.objects == {}


def test_a_training_that_has_not_begun_has_nothing_to_save(tmp_path: Path) -> None:
    yard = Yard(tmp_path, StageKind.TRAIN)
    yard.backend.start(yard.stage)
    yard.becomes("no-gpu")
    yard.backend.stop(yard.stage, grace_s=600)
    yard.backend.observe(yard.stage)
    assert yard.kube.objects == {}


def test_what_somebody_deletes_is_noticed_and_made_again(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.now_s += 2
    yard.backend.observe(yard.stage)
    yard.kube.objects.clear()
    yard.now_s += 2
    decision = decide(yard.backend.observe(yard.stage))
    assert isinstance(decision, Retry) and decision.failure == "deleted"
    yard.backend.start(yard.stage)
    assert yard.object["metadata"]["uid"] == "uid-2"


def test_a_list_that_is_behind_is_not_believed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.backend.start(yard.stage)
    monkeypatch.setattr(yard.kube, "list", lambda kind, **options: [])
    assert yard.backend.observe(yard.stage).phase == "running"


def test_the_log_of_a_container_that_never_began_is_why(yard: Yard) -> None:
    yard.backend.start(yard.stage)
    yard.becomes("no-secret")
    [line] = list(yard.backend.logs(yard.stage))
    assert "slipway-prepare-00000000aa03-4jxbm: Secret absent is not there" in line
