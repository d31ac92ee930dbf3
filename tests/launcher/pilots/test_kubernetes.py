"""`launcher.pilots.kubernetes`: what a laptop asks of the API server, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from launcher.backends import manifest
from launcher.errors import ClusterError, UserError
from launcher.pilots import kubernetes
from launcher.pilots.kubernetes import USER_LABEL, KubernetesPilots, is_active, user_label
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.fake_kube import FakeKube
from tests.launcher.kubernetes_plans import CPU, IMAGES, kubernetes_plan

RUN = "bot-1a2b3c4d"
PILOT = f"slipway-pilot-{RUN}"


class Bench:
    """Pilots of a profile, with a store and an API server to look into."""

    def __init__(self, folder: Path) -> None:
        self.store, self.kube = LocalStore(folder), FakeKube()
        self.plan = kubernetes_plan(CPU)
        self.pilots = self.make()

    def make(self, sleep: Callable[[float], None] = lambda seconds: None) -> KubernetesPilots:
        profile = KubernetesCluster.model_validate(CPU)
        connect: Any = lambda: self.kube  # noqa: E731
        return KubernetesPilots("prod", self.store, profile, connect=connect, sleep=sleep)

    def complete(self, *kinds: str, **facts: Any) -> None:
        for kind in kinds:
            ArtifactWriter(self.store, self.plan.stage(kind).output).commit(**facts)

    def with_images(self) -> Bench:
        self.complete("image", pilot=IMAGES.pilot, train=IMAGES.train)
        return self


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def pod(
    name: str, stage: str, status: dict[str, Any], created: str = "2026-11-21T10:00:00Z"
) -> dict[str, Any]:
    labels = {"slipway/run": RUN, "slipway/stage": stage}
    metadata = {"name": name, "labels": labels, "creationTimestamp": created}
    spec = {"nodeName": "node1", "containers": [{"name": "slipway"}]}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


PULLING = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": "slipway",
            "image": "registry.example.com/ml/slipway@sha256:aa",
            "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown: not found"}},
        }
    ],
}


# Launching -------------------------------------------------------------------------------------------------


def test_a_launch_makes_the_objects_of_a_run_with_the_job_last(bench: Bench) -> None:
    assert bench.with_images().pilots.launch(bench.plan, RUN)
    made = [kind for verb, kind in bench.kube.requests if verb == "create"]
    assert made == ["ConfigMap", "NetworkPolicy", "Job"]
    job = bench.kube.objects[("Job", PILOT)]
    assert job["metadata"]["labels"]["slipway/run"] == RUN
    assert job["spec"] == manifest.pilot_job(bench.plan, RUN, IMAGES)["spec"]


def test_who_launches_stands_on_the_job_and_nowhere_in_its_spec(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "local_user", lambda: "Zoë van Dijk")
    bench.with_images().pilots.launch(bench.plan, RUN)
    job = bench.kube.objects[("Job", PILOT)]
    assert job["metadata"]["labels"][USER_LABEL] == "Zo--van-Dijk"
    assert "Zo-" not in str(job["spec"])


@pytest.mark.parametrize(
    ("name", "label"), [("", {}), ("ana", {USER_LABEL: "ana"}), ("_svc$", {USER_LABEL: "svc"}), ("田中", {})]
)
def test_a_user_name_becomes_a_label_that_kubernetes_takes(
    name: str, label: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "local_user", lambda: name)
    assert user_label() == label


def test_two_launches_make_one_job(bench: Bench) -> None:
    """The second finds nobody alive, and the name taken a moment later."""
    first, second = bench.with_images().make(), bench.make()
    assert first.launch(bench.plan, RUN)
    uid = bench.kube.objects[("Job", PILOT)]["metadata"]["uid"]
    second.is_alive = lambda run_id: False  # type: ignore[method-assign]
    assert not second.launch(bench.plan, RUN)
    assert bench.kube.objects[("Job", PILOT)]["metadata"]["uid"] == uid


@pytest.mark.parametrize("ending", ["Complete", "Failed"])
def test_an_ended_job_makes_room_for_another(bench: Bench, ending: str) -> None:
    bench.with_images().pilots.launch(bench.plan, RUN)
    bench.kube.end("Job", PILOT, ending)
    before = bench.kube.objects[("Job", PILOT)]["metadata"]["uid"]
    assert not bench.pilots.is_alive(RUN)
    assert bench.pilots.launch(bench.plan, RUN)
    assert bench.pilots.is_alive(RUN)
    assert bench.kube.objects[("Job", PILOT)]["metadata"]["uid"] != before


def test_an_ended_job_that_stays_is_named_with_the_command_that_removes_it(bench: Bench) -> None:
    bench.with_images().pilots.launch(bench.plan, RUN)
    bench.kube.end("Job", PILOT, "Failed")
    bench.kube.delete = lambda *_, **__: True  # type: ignore[method-assign]  # a finalizer holds it
    with pytest.raises(ClusterError, match=f"kubectl -n slipway delete job {PILOT}"):
        bench.pilots.launch(bench.plan, RUN)


def test_nothing_is_made_without_an_image(bench: Bench) -> None:
    with pytest.raises(UserError, match="slipway stage JOB --cluster prod"):
        bench.pilots.launch(bench.plan, RUN)
    assert bench.kube.objects == {}


@pytest.mark.parametrize(
    ("job", "active"),
    [
        ({"metadata": {}}, True),
        ({"metadata": {}, "status": {"active": 1}}, True),
        ({"metadata": {}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}, False),
        ({"metadata": {}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}, False),
        ({"metadata": {}, "status": {"conditions": [{"type": "Failed", "status": "False"}]}}, True),
        ({"metadata": {"deletionTimestamp": "2026-11-21T10:00:00Z"}}, False),
    ],
)
def test_a_job_is_active_until_it_ended_or_is_deleted(job: dict[str, Any], active: bool) -> None:
    assert is_active(job) is active


# Rendering -------------------------------------------------------------------------------------------------


def staged(bench: Bench) -> Plan:
    bench.with_images().complete("data")
    return bench.plan


def test_rendered_is_what_a_launch_applies_but_for_who_launches(bench: Bench) -> None:
    rendered = bench.pilots.objects(staged(bench), RUN)
    bench.pilots.launch(bench.plan, RUN)
    for body in rendered:
        made = bench.kube.objects[(str(body["kind"]), body["metadata"]["name"])]  # type: ignore[index]
        for field in ("uid", "resourceVersion"):
            made["metadata"].pop(field)
        made["metadata"]["labels"].pop(USER_LABEL, None)
        assert made == body
    assert bench.pilots.objects(bench.plan, RUN) == rendered


@pytest.mark.parametrize("missing", ["image", "data"])
def test_rendering_refuses_what_only_this_machine_has(bench: Bench, missing: str) -> None:
    staged(bench)
    bench.store.delete(f"{bench.plan.stage(missing).output}/COMPLETE.json")
    with pytest.raises(UserError, match=f"the image|{missing}.*slipway stage JOB --cluster prod"):
        bench.pilots.objects(bench.plan, RUN)


def test_one_stage_is_rendered_once_its_inputs_are_complete(bench: Bench) -> None:
    plan = staged(bench)
    with pytest.raises(UserError, match="--stage train: its inputs are not complete: prepared/"):
        bench.pilots.objects(plan, RUN, "train")
    bench.complete("model", "prepare")
    kinds = [body["kind"] for body in bench.pilots.objects(plan, RUN, "train")]
    assert kinds == ["ConfigMap", "RayJob"]


@pytest.mark.parametrize("stage", ["data", "image", "gguf"])
def test_a_stage_that_no_object_carries_out_is_not_rendered(bench: Bench, stage: str) -> None:
    with pytest.raises(UserError, match=f"--stage {stage}.*model, prepare, train, merge, predict"):
        bench.pilots.objects(staged(bench), RUN, stage)


# Looking ---------------------------------------------------------------------------------------------------


def test_runs_that_are_alive_are_found_by_their_pilots(bench: Bench) -> None:
    for run_id in (RUN, "bot-2b3c4d5e"):
        bench.with_images().pilots.launch(bench.plan, run_id)
    bench.kube.end("Job", PILOT, "Failed")
    assert bench.pilots.alive_runs() == ["bot-2b3c4d5e"]


def test_pods_are_told_with_what_they_wait_for_in_two_requests(bench: Bench) -> None:
    for body in (pod("b", "train", {"phase": "Running"}), pod("a", "pilot", PULLING)):
        bench.kube.objects[("Pod", body["metadata"]["name"])] = body
    rows = bench.pilots.members(bench.plan, RUN)
    assert [(row["STAGE"], row["POD"], row["NODE"], row["STATE"]) for row in rows] == [
        ("pilot", "a", "node1", "pending"),
        ("train", "b", "node1", "running"),
    ]
    assert rows[0]["WHY"].startswith("the registry has no image registry.example.com/ml/slipway@sha256:aa; ")
    assert bench.kube.requests == [("list", "Pod"), ("list", "Event")]


def test_a_pilot_that_has_not_begun_says_why(bench: Bench) -> None:
    assert bench.pilots.waiting(RUN) == ""
    bench.kube.objects[("Pod", "a")] = pod("a", "pilot", PULLING)
    assert "the registry has no image" in bench.pilots.waiting(RUN)


def test_last_words_are_the_newest_pods(bench: Bench) -> None:
    for name, created in (("old", "2026-11-21T10:00:00Z"), ("new", "2026-11-21T11:00:00Z")):
        bench.kube.objects[("Pod", name)] = pod(name, "pilot", {"phase": "Failed"}, created)
        bench.kube.logs[name] = f"words of the {name} pod"
    output, where = bench.pilots.last_words(RUN, 0.0)
    assert output == "words of the new pod"
    assert where == f"kubectl -n slipway logs job/{PILOT}"


# Ending ----------------------------------------------------------------------------------------------------


def test_clearing_removes_what_was_made_for_the_run_and_nothing_else(bench: Bench) -> None:
    bench.with_images()
    for run_id in (RUN, "bot-2b3c4d5e"):
        bench.pilots.launch(bench.plan, run_id)
    bench.kube.create(manifest.stage_object(bench.plan, RUN, bench.plan.stage(StageKind.TRAIN), IMAGES))
    bench.pilots.clear(RUN)
    left = {name for _, name in bench.kube.objects}
    assert left == {
        "slipway-pilot-bot-2b3c4d5e",
        manifest.plan_name("bot-2b3c4d5e"),
        "slipway-bot-2b3c4d5e",
    }
