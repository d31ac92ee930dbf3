"""`launcher.backends.kubernetes` on a real cluster, with stages that only pretend: how each ending and each
reason to wait comes through, and that nothing is made twice."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.manifest import is_complete
from launcher.kube import Kube, Object
from launcher.status import Attempt, Done, Fail, Retry, decide
from tests.cluster.conftest import Place
from tests.cluster.stages import Scene, build_stand_in, make_plan

#: The issue's bar: from the start of a stage to the reason why it waits.
TOLD_WITHIN_S = 15


@pytest.fixture(scope="session")
def stand_in(settings: dict[str, str]) -> str:
    return build_stand_in(settings)


@pytest.fixture
def scene(place: Place, kube: Kube, stand_in: str) -> Iterator[Callable[..., Scene]]:
    """`scene("exit:75")`: a stage that does so, not started yet. `changes` are sections of the profile."""
    made: list[Scene] = []

    def make(
        does: str, kind: StageKind = StageKind.PREPARE, image: str = stand_in, key: str = "", **changes: Any
    ) -> Scene:
        profile = {**place.profile.model_dump(mode="json"), **changes}
        made.append(Scene(make_plan(profile, kind, does, key), kube, place.store, image))
        return made[-1]

    yield make
    for one in made:
        one.clear()


Make = Callable[..., Scene]


def test_a_stage_is_done_once_job_and_marker_agree(scene: Make) -> None:
    one = scene("print:hello,commit")
    assert one.backend.observe(one.stage).phase == "absent"
    one.backend.start(one.stage)
    observation = one.ended()
    assert decide(observation) == Done()
    assert is_complete(one.store, one.stage.output)
    assert one.another_backend("drive-2").observe(one.stage).phase == "absent"  # and committed


def test_success_without_a_marker_is_asked_once_more(scene: Make) -> None:
    one = scene("exit:0")
    one.backend.start(one.stage)
    retry = decide(one.ended())
    assert isinstance(retry, Retry) and "commit marker is missing" in retry.reason
    first = one.object()
    one.backend.start(one.stage)
    assert one.until(lambda observation: observation.phase == "ended").exit_code == 0
    assert one.object()["metadata"]["uid"] != first["metadata"]["uid"]  # type: ignore[index]


@pytest.mark.parametrize(("code", "failure"), [(75, "drained"), (1, None), (137, "killed")])
def test_exit_codes_come_through(scene: Make, code: int, failure: str | None) -> None:
    one = scene(f"print:last words of it,exit:{code}")
    one.backend.start(one.stage)
    observation = one.ended()
    decision = decide(observation)
    assert observation.exit_code == (-9 if code == 137 else code)
    assert decision.failure == failure if isinstance(decision, Retry) else failure is None
    [pod] = one.read_evidence(observation, "pods.json")
    prefix = observation.evidence.removeprefix(f"{one.store.uri}/")
    log = one.store.read_bytes(f"{prefix}/logs/{pod['metadata']['name']}-slipway.log").decode()
    assert "last words of it" in log


def test_a_users_mistake_comes_through(scene: Make) -> None:
    one = scene("exit:2")
    one.backend.start(one.stage)
    decision = decide(one.ended())
    assert isinstance(decision, Fail) and decision.user_error


def test_a_memory_limit_is_named_with_the_setting_to_raise(scene: Make) -> None:
    one = scene("eat:400")
    one.backend.start(one.stage)
    decision = decide(one.ended())
    assert isinstance(decision, Fail)
    assert "memory limit of 128Mi" in decision.reason and "resources.prepare.memory" in decision.advice


def asking(amounts: dict[str, str]) -> dict[str, Any]:
    """A pod_template whose container asks for more."""
    resources = {"requests": amounts, "limits": amounts}
    return {"spec": {"containers": [{"name": "slipway", "resources": resources}]}}


@pytest.mark.parametrize(
    ("changes", "told", "advice"),
    [
        ({"pod_template": asking({"nvidia.com/gpu": "99"})}, "no node has 99 free GPUs", "compute.workers"),
        ({"pod_template": asking({"cpu": "999"})}, "no node has 999 free cores", "nodes.cpus"),
        ({"image": "absent"}, "has no image", "slipway image build"),
        ({"secrets": {"TOKEN": {"secret": "absent", "key": "k"}}}, "Secret absent is not there", "kubectl"),
        ({"service_account": "absent"}, "service account absent is not there", "kubectl apply -k"),
        ({"cache": {"claim": "absent"}}, "volume claim absent is not there", "cache.claim"),
    ],
    ids=["gpu", "cores", "image", "secret", "account", "claim"],
)
def test_why_it_waits_is_told(
    scene: Make, settings: dict[str, str], changes: dict[str, Any], told: str, advice: str
) -> None:
    if changes.get("image"):
        changes = {"image": f"{settings['SLIPWAY_TEST_REGISTRY']}/absent:1"}
    one, started_s = scene("commit", **changes), time.time()
    one.backend.start(one.stage)
    observation = one.until(lambda observation: observation.note, TOLD_WITHIN_S)
    assert observation.phase == "running"
    assert told in observation.note and advice in observation.note
    print(f"told after {one.seen[-1][0] - started_s:.1f} s: {observation.note}")


@pytest.fixture
def quota(kube: Kube) -> Iterator[None]:
    """One that leaves no room."""
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none-left"}}
    kube.apply({**body, "spec": {"hard": {"requests.memory": "1Mi"}}})
    while "hard" not in (kube.get("ResourceQuota", "none-left") or {}).get("status", {}):
        time.sleep(0.2)
    yield
    kube.delete("ResourceQuota", "none-left")


@pytest.mark.parametrize("kind", [StageKind.PREPARE, StageKind.TRAIN])
def test_a_quota_is_named(scene: Make, quota: None, kind: StageKind) -> None:
    one = scene("commit", kind)
    one.backend.start(one.stage)
    observation = one.until(lambda observation: observation.note, TOLD_WITHIN_S)
    assert "quota none-left allows requests.memory=1Mi" in observation.note


def test_a_stage_that_waits_too_long_ends_and_takes_nothing(scene: Make) -> None:
    limits = {"pending_s": 30, "grace_s": 5}
    one = scene("commit", pod_template=asking({"nvidia.com/gpu": "99"}), limits=limits)
    one.backend.start(one.stage)
    decision = decide(one.ended(60))
    assert isinstance(decision, Fail)
    assert "limits.pending_s" in decision.reason and "no node has 99 free GPUs" in decision.reason
    assert one.object() is None


def test_a_second_backend_of_the_run_attaches(scene: Make) -> None:
    one = scene("sleep:8,commit")
    one.backend.start(one.stage)
    one.until(lambda observation: observation.phase == "running")
    other = one.another_backend("drive-2")
    assert one.until(lambda observation: True, backend=other).phase == "running"
    other.start(one.stage)
    assert decide(one.until(lambda observation: observation.phase == "ended", backend=other)) == Done()
    assert decide(one.ended()) == Done()
    assert len(one.kube.list("Pod", labels=f"slipway/key={one.name[-12:]}")) == 1


def test_two_backends_that_start_at_once_make_one_object(scene: Make) -> None:
    one = scene("sleep:3,commit")
    other = one.another_backend("drive-2")
    one.backend.start(one.stage)
    other.start(one.stage)
    assert decide(one.until(lambda observation: observation.phase == "ended", backend=other)) == Done()
    assert len(one.kube.list("Pod", labels=f"slipway/key={one.name[-12:]}")) == 1


def test_what_another_run_makes_is_waited_for_and_what_it_left_is_replaced(scene: Make) -> None:
    one = scene("sleep:6,exit:1")
    two = scene("commit", key=one.stage.key[:32])
    assert two.run_id != one.run_id and two.name == one.name
    one.backend.start(one.stage)
    two.backend.start(two.stage)
    assert two.until(lambda observation: True).phase == "elsewhere"
    two.until(lambda observation: observation.phase == "absent")
    two.backend.start(two.stage)
    assert decide(two.ended()) == Done()


def test_an_old_failure_is_no_obstacle_to_a_resume(scene: Make) -> None:
    one = scene("exit:1")
    one.backend.start(one.stage)
    assert isinstance(decide(one.ended()), Fail)
    first = one.object()
    resumed = one.another_backend("drive-2")
    assert decide(resumed.observe(one.stage)) == Retry(0.0, "not started")
    resumed.start(one.stage)
    one.until(lambda observation: observation.phase == "ended", backend=resumed)
    assert one.object()["metadata"]["uid"] != first["metadata"]["uid"]  # type: ignore[index]


def test_stopping_removes_what_was_made(scene: Make) -> None:
    one = scene("sleep:300,commit")
    one.backend.start(one.stage)
    one.until(lambda observation: any(pod["status"]["phase"] == "Running" for pod in one.pods()))
    one.backend.stop(one.stage, grace_s=0)
    one.until(lambda observation: observation.phase == "absent", 30)
    assert one.object() is None


def test_somebody_who_deletes_a_stage_is_noticed(scene: Make) -> None:
    one = scene("sleep:300,commit")
    one.backend.start(one.stage)
    one.until(lambda observation: one.pods())
    one.kube.delete("Job", one.name)
    decision = decide(one.ended(30))
    assert isinstance(decision, Retry) and decision.failure == "deleted"
    one.backend.start(one.stage)
    assert one.until(lambda observation: one.object()).phase == "running"


# Trainings, slow: test_faults.py takes the pods of a real one away ------------------------------------------


def rounds(one: Scene) -> bool:
    body = one.object() or {}
    return bool(body.get("status", {}).get("jobStatus") == "RUNNING")


#: From the start of a training to its first rounds: half a minute, on a busy machine much longer.
START_S = 600


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_survives_a_lost_worker_and_a_suspension(scene: Make) -> None:
    one = scene("rounds:16:2,commit", StageKind.TRAIN)
    one.backend.start(one.stage)
    one.until(lambda observation: rounds(one), START_S)
    worker = one.pods("worker")[0]["metadata"]
    one.kube.delete("Pod", worker["name"], uid=worker["uid"])
    one.until(lambda observation: worker["uid"] not in [pod["metadata"]["uid"] for pod in one.pods("worker")])
    one.kube.patch("RayJob", one.name, {"spec": {"suspend": True}})
    observation = one.until(lambda observation: "suspended by its queue" in observation.note, 60)
    assert observation.phase == "running"
    one.until(lambda observation: not one.kube.list("Pod", labels=f"slipway/key={one.name[-12:]}"), 90)
    one.kube.patch("RayJob", one.name, {"spec": {"suspend": False}})
    one.until(lambda observation: rounds(one), START_S)
    assert decide(one.ended(240)) == Done()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_whose_head_is_deleted_goes_on(scene: Make) -> None:
    """The head's preStop hook has the training save and end. Either the operator still sees that (exit code
    75: another RayJob goes on), or it submits the entrypoint again to the new head."""
    one = scene("rounds:2000:2,commit", StageKind.TRAIN)
    one.backend.start(one.stage)
    one.until(lambda observation: rounds(one), START_S)
    [head] = one.pods("head")
    one.kube.delete("Pod", head["metadata"]["name"])
    one.until(lambda observation: observation.phase == "ended" or new_head(one, head), 120)
    if (observation := one.backend.observe(one.stage)).phase == "ended":
        retry = decide(observation)
        assert isinstance(retry, Retry) and retry.failure == "drained"
        one.backend.start(one.stage)
    one.until(lambda observation: rounds(one) and new_head(one, head), START_S)
    one.backend.stop(one.stage, grace_s=0)
    one.until(lambda observation: observation.phase == "absent", 90)


def new_head(one: Scene, old: Object) -> bool:
    return any(pod["metadata"]["uid"] != old["metadata"]["uid"] for pod in one.pods("head"))


@pytest.fixture
def lose_node(settings: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """`lose_node("node2")` switches it off, for as long as the test runs."""
    down, up = (settings.get(f"SLIPWAY_TEST_NODE_{what}") for what in ("DOWN", "UP"))
    if not down or not up:
        pytest.skip("no commands to switch a node off and on")
    lost: list[str] = []

    def lose(node: str) -> None:
        lost.append(node)
        subprocess.run([*shlex.split(down), node], check=True, capture_output=True, timeout=120)

    yield lose
    for node in lost:
        subprocess.run([*shlex.split(up), node], check=True, capture_output=True, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_on_a_lost_node_is_replaced(scene: Make, lose_node: Callable[[str], None]) -> None:
    one = scene("rounds:2000:2,commit", StageKind.TRAIN)
    one.backend.start(one.stage)
    one.until(lambda observation: rounds(one), START_S)
    head = one.pods("head")[0]["spec"]["nodeName"]
    away = [pod for pod in one.pods("worker") if pod["spec"]["nodeName"] != head]
    assert away, "the scheduler put all pods on one node"
    node, lost_s = away[0]["spec"]["nodeName"], time.time()
    lose_node(node)
    observation = one.until(lambda observation: "is not ready" in observation.note, 90)
    assert f"node {node} is not ready: a worker there is lost" in observation.note
    uids = {pod["metadata"]["uid"] for pod in away}
    one.until(lambda observation: uids.isdisjoint(pod["metadata"]["uid"] for pod in one.kube.list("Pod")), 90)
    one.until(
        lambda observation: all(map(is_running, one.pods("worker"))) and len(one.pods("worker")) == 2, 120
    )
    print(f"replaced {time.time() - lost_s:.0f} s after the loss: {one.seen}")
    one.backend.stop(one.stage, grace_s=0)


def is_running(pod: Object) -> bool:
    return bool(pod["status"]["phase"] == "Running")


@pytest.mark.timeout(600)
def test_a_stage_on_a_lost_node_is_started_elsewhere(scene: Make, lose_node: Callable[[str], None]) -> None:
    one = scene("sleep:300,commit")
    one.backend.start(one.stage)
    one.until(lambda observation: any(map(is_running, one.pods())))
    node, lost_s = one.pods()[0]["spec"]["nodeName"], time.time()
    lose_node(node)
    observation = one.until(lambda observation: "is not ready" in observation.note, 90)
    assert f"node {node} is not ready: its pod there is lost" in observation.note
    retry = decide(one.ended())
    assert isinstance(retry, Retry) and retry.failure == "node-lost"
    one.backend.start(one.stage)
    print(f"started again {time.time() - lost_s:.0f} s after the loss")
    one.until(
        lambda observation: any(is_running(pod) and pod["spec"]["nodeName"] != node for pod in one.pods())
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_drained_training_is_told_by_its_exit_code_and_removed_when_asked(scene: Make) -> None:
    one = scene("rounds:2:2,sleep:5,exit:75", StageKind.TRAIN)
    one.backend.start(one.stage)
    one.until(lambda observation: rounds(one), START_S)
    one.backend.stop(one.stage, grace_s=200)
    observation = one.ended(200)
    assert (observation.exit_code, observation.ended_by) == (75, "")
    retry = decide(observation, [Attempt(failure="drained", progressed=True)])
    assert isinstance(retry, Retry) and retry.failure == "drained"
    one.until(lambda observation: one.object() is None, 30)
