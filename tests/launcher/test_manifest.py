from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from artifacts.contract import DataFile, DataParams, Plan, StageKind
from launcher.backends import manifest
from launcher.errors import UserError
from tests.launcher.kubernetes_plans import CPU, GPU, IMAGES, kubernetes_plan
from tests.launcher.manifest_audit import audit, pod_templates
from tests.launcher.plans import assert_golden
from tests.plan_parts import stage

RUN = "bot-0123abcd"
IN_CLUSTER = (StageKind.MODEL, StageKind.PREPARE, StageKind.TRAIN, StageKind.MERGE, StageKind.PREDICT)
Object = dict[str, Any]


def all_objects(plan: Plan, run_id: str = RUN) -> list[Object]:
    stages = [manifest.stage_object(plan, run_id, plan.stage(kind), IMAGES, "uid-1") for kind in IN_CLUSTER]
    return [*manifest.run_objects(plan, run_id, IMAGES), *stages]


def as_yaml(*objects: Object) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False, width=1000)


def of_stage(kind: StageKind, profile: Object, **more: Any) -> Object:
    plan = kubernetes_plan(profile, **more)
    return manifest.stage_object(plan, RUN, plan.stage(kind), IMAGES, "uid-1")


@pytest.mark.parametrize(("name", "profile", "workers"), [("cpu", CPU, 2), ("gpu", GPU, 16)])
def test_whole_training(name: str, profile: Object, workers: int) -> None:
    assert_golden(
        f"manifests/{name}-train.yaml", as_yaml(of_stage(StageKind.TRAIN, profile, workers=workers))
    )


def test_whole_stage_job() -> None:
    assert_golden("manifests/merge.yaml", as_yaml(of_stage(StageKind.MERGE, CPU)))


def test_whole_pilot() -> None:
    plan = kubernetes_plan(CPU)
    objects = [manifest.network_policy(plan, RUN), manifest.pilot_job(plan, RUN, IMAGES)]
    assert_golden("manifests/pilot.yaml", as_yaml(*objects))


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_every_object_is_sound(profile: Object) -> None:
    longest = "a" * 30
    plan = kubernetes_plan(profile, workers=16, name=longest)
    assert audit(all_objects(plan, f"{longest}-0123abcd")) == []


@pytest.mark.parametrize(
    ("pod", "container", "fault"),
    [
        ({}, {"image": "ray:latest"}, "ray:latest is no digest"),
        ({}, {"resources": {"requests": {"memory": "1Ki"}}}, "requests and limits differ"),
        ({}, {"securityContext": {"readOnlyRootFilesystem": False}}, "can be written to"),
        ({"securityContext": {"runAsUser": 0}}, {}, "runs as root"),
        ({"hostNetwork": True}, {}, "hostNetwork"),
        ({"automountServiceAccountToken": True}, {}, "the token"),
    ],
)
def test_the_audit_sees_what_a_patch_does(pod: Object, container: Object, fault: str) -> None:
    patch = {"spec": {**pod, "containers": [{"name": "slipway", **container}]}}
    faults = audit(all_objects(kubernetes_plan({**CPU, "pod_template": patch})))
    assert any(fault in found for found in faults), faults


def test_the_audit_sees_a_secret() -> None:
    body = of_stage(StageKind.MERGE, CPU)
    body["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "HF_TOKEN", "value": "x"})
    assert audit([body]) == ["Job slipway-merge-555555555555: HF_TOKEN is spelt out"]


def test_rendering_depends_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = kubernetes_plan(GPU, workers=16)
    here = all_objects(plan)
    for name in ("AWS_ACCESS_KEY_ID", "HOME", "KUBECONFIG", "HF_TOKEN"):
        monkeypatch.setenv(name, "/elsewhere")
    assert all_objects(Plan.from_json(plan.to_json())) == here


def test_plan_in_the_config_map_is_the_plan() -> None:
    plan = kubernetes_plan(CPU)
    body = manifest.plan_config_map(plan, RUN)
    assert Plan.from_json(body["data"]["plan.json"]).digest == plan.digest
    assert body["immutable"] is True


def test_plan_that_no_config_map_holds() -> None:
    plan = kubernetes_plan(CPU, job={"name": "bot", "data": "x" * 2**20})
    with pytest.raises(UserError, match="1 MiB"):
        manifest.plan_config_map(plan, RUN)


def test_labels_say_whose_it_is() -> None:
    plan = kubernetes_plan(CPU)
    assert manifest.labels(plan, RUN) == {
        "app.kubernetes.io/managed-by": "slipway",
        "slipway/run": RUN,
        "slipway/job": "bot",
        "slipway/stage": "pilot",
    }
    assert manifest.labels(plan, RUN, StageKind.MERGE)["slipway/key"] == "5" * 12
    for body in all_objects(plan):
        for template in pod_templates(body):
            expected = body["metadata"]["labels"].items()
            assert expected <= template["metadata"]["labels"].items()


def test_a_stage_has_one_name_in_every_run() -> None:
    plan = kubernetes_plan(CPU)
    names = {
        manifest.stage_object(plan, run, plan.stage("train"), IMAGES)["metadata"]["name"]
        for run in ("bot-0123abcd", "other-4567cdef")
    }
    assert names == {"slipway-train-444444444444"}


def test_drive_is_written_on_what_it_made() -> None:
    plan = kubernetes_plan(CPU)
    of = {
        drive: manifest.stage_object(plan, RUN, plan.stage("merge"), IMAGES, drive)["metadata"]
        for drive in ("uid-1", "")
    }
    assert of["uid-1"]["annotations"] == {"slipway/drive": "uid-1"}
    assert "annotations" not in of[""]


@pytest.mark.parametrize("kind", [StageKind.IMAGE, StageKind.DATA])
def test_stages_of_the_laptop_have_no_object(kind: StageKind) -> None:
    with pytest.raises(ValueError, match="does not run in the cluster"):
        of_stage(kind, CPU)


def test_data_that_lies_elsewhere_is_read_by_a_small_pod() -> None:
    file = DataFile(path="s3://bucket/train.jsonl", size_bytes=0, sha256="0" * 64, format="auto")
    data = stage(StageKind.DATA, DataParams(splits={"train": [file]}), "1" * 64)
    job = manifest.stage_object(kubernetes_plan(CPU), RUN, data, IMAGES, "uid-1")
    assert audit([job]) == []
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGES.pilot  # has all that it takes, and is pulled in seconds
    assert container["args"][:4] == ["python", "-m", "train.pod", "data"]
    assert container["args"][-2:] == ["--module", "launcher.stages.data_run"]


def test_network_policy_is_optional() -> None:
    plan = kubernetes_plan({**CPU, "network_policy": False})
    assert [body["kind"] for body in manifest.run_objects(plan, RUN, IMAGES)] == ["ConfigMap", "Job"]


def test_pilot_is_replaced_even_while_one_is_terminating() -> None:
    spec = manifest.pilot_job(kubernetes_plan(CPU), RUN, IMAGES)["spec"]
    assert spec["backoffLimit"] > 10
    assert "podFailurePolicy" not in spec  # it would wait for the end of a pod on a lost node


def test_pilot_gets_the_store_and_no_other_secret() -> None:
    profile = {**GPU, "s3": {"secret": "slipway-s3"}}
    (template,) = pod_templates(manifest.pilot_job(kubernetes_plan(profile, 16), RUN, IMAGES))
    (container,) = template["spec"]["containers"]
    named = {entry["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})}
    assert named == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def test_kueue_admits_stages_but_not_the_pilot() -> None:
    plan = kubernetes_plan(GPU, workers=16)
    for body in all_objects(plan):
        queued = body["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "research"
        assert queued == ("slipway/key" in body["metadata"]["labels"])
        assert bool(body.get("spec", {}).get("suspend")) == queued
        for template in pod_templates(body):  # Kueue would manage labelled pods one by one
            assert "kueue.x-k8s.io/queue-name" not in template["metadata"]["labels"]


def test_labels_and_annotations_of_the_profile_are_everywhere() -> None:
    for body in all_objects(kubernetes_plan(GPU, workers=16)):
        for metadata in (body["metadata"], *(template["metadata"] for template in pod_templates(body))):
            assert metadata["labels"]["team"] == "assistants"
            assert metadata["annotations"]["example.com/cost-center"] == "4711"


def test_deadlines_leave_time_for_waiting() -> None:
    limits = {"stage_s": 600, "pending_s": 60, "keep_s": 0}
    spec = of_stage(StageKind.MERGE, {**CPU, "limits": limits})["spec"]
    assert spec["activeDeadlineSeconds"] == 660
    assert spec["ttlSecondsAfterFinished"] >= 60  # the pilot must see how it ended
    assert spec["backoffLimit"] == 0


def test_command_of_a_stage() -> None:
    (template,) = pod_templates(of_stage(StageKind.MERGE, CPU))
    (container,) = template["spec"]["containers"]
    words = " ".join(container["args"])
    assert words == f"python -m train.pod merge --plan /etc/slipway/plan.json --run {RUN} --work /work"
    assert "command" not in container  # the image's own entrypoint stays the first process
    assert re.search(r"@sha256:b{64}$", container["image"])
