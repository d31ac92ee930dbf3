"""Objects of a run against a real API server: its validation, its admission of pods, its authorization."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from typing import Any

import pytest

from artifacts.contract import StageKind
from launcher.backends import manifest
from launcher.kube import Kube, KubeError
from launcher.stages.image import Images
from tests.cluster.conftest import S3_SECRET, kubectl
from tests.launcher.kubernetes_plans import CPU, GPU, IMAGES, kubernetes_plan
from tests.launcher.manifest_audit import pod_templates

Object = dict[str, Any]
IN_CLUSTER = (StageKind.MODEL, StageKind.PREPARE, StageKind.TRAIN, StageKind.MERGE, StageKind.PREDICT)

#: What the pilot does: verb and resource.
ALLOWED = (
    *(
        f"{verb} {kind}"
        for kind in ("jobs", "rayjobs.ray.io")
        for verb in ("get", "list", "create", "delete")
    ),
    *("patch jobs", "patch rayjobs.ray.io", "get pods", "list pods", "delete pods", "get pods/log"),
    *("list events", "get configmaps", "get leases", "create leases", "patch leases", "get nodes"),
)
DENIED = (
    *("get secrets", "list secrets", "create secrets", "create pods", "get pods/exec", "create pods/exec"),
    *("create configmaps", "patch configmaps", "delete nodes", "patch nodes", "create rolebindings"),
    *("list leases", "delete leases", "patch roles", "impersonate serviceaccounts", "create serviceaccounts"),
)


def objects(profile: Object, namespace: str) -> list[Object]:
    plan = kubernetes_plan({**profile, "namespace": namespace}, workers=16)
    stages = [manifest.stage_object(plan, "bot-0123abcd", plan.stage(kind), IMAGES) for kind in IN_CLUSTER]
    return [*manifest.run_objects(plan, "bot-0123abcd", IMAGES), *stages]


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_server_takes_every_object_without_a_warning(profile: Object, namespace: str) -> None:
    """Unknown fields are refused; templates that the namespace's pod security would refuse are warned of."""
    for body in objects(profile, namespace):
        command = ["kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-"]
        result = subprocess.run(command, input=json.dumps(body), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_every_pod_is_admitted_as_restricted(profile: Object, kube: Kube) -> None:
    profile = {**profile, "queue": {}}  # the priority class is not on this cluster
    templates = [item for body in objects(profile, kube.namespace) for item in pod_templates(body)]
    for template in templates:
        kube.create(as_pod(template), dry_run=True)


def test_a_pod_that_does_more_is_refused(kube: Kube) -> None:
    harm = {"spec": {"hostNetwork": True}}
    (template,) = pod_templates(objects({**CPU, "pod_template": harm}, kube.namespace)[-1])
    with pytest.raises(KubeError, match="violates PodSecurity"):
        kube.create(as_pod(template), dry_run=True)


def as_pod(template: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        **template,
        "metadata": {"name": "one", **template["metadata"]},
    }


@pytest.mark.parametrize(
    ("rights", "answer"), [(ALLOWED, "yes"), (DENIED, "no")], ids=["what it needs", "nothing more"]
)
def test_rights_of_the_pilot(rights: tuple[str, ...], answer: str, namespace: str) -> None:
    told = {right: can_i(right, "slipway-pilot", namespace) for right in rights}
    assert told == dict.fromkeys(rights, answer)


def test_stages_have_no_rights(namespace: str) -> None:
    rights = {right: can_i(right, "slipway-stage", namespace) for right in (*ALLOWED, *DENIED)}
    assert set(rights.values()) == {"no"}


def can_i(right: str, account: str, namespace: str) -> str:
    user = f"system:serviceaccount:{namespace}:{account}"
    verb, resource = right.split()
    resource, _, subresource = resource.partition("/")
    command = ["kubectl", "-n", namespace, "auth", "can-i", verb, resource, "--as", user]
    command += [f"--subresource={subresource}"] if subresource else []
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout.strip()


def test_pilot_that_ends_the_run_is_not_repeated(kube: Kube, settings: dict[str, str]) -> None:
    name = start_pilot("sleep 5; exit 1", kube, settings)
    kube.patch("Job", name, manifest.LAST_PILOT)
    kubectl("-n", kube.namespace, "wait", "--for=condition=Failed", f"job/{name}", "--timeout=90s")
    assert len(pods_of(kube, name)) == 1
    kube.delete("Job", name)


def test_pilot_that_failed_otherwise_is_repeated(kube: Kube, settings: dict[str, str]) -> None:
    name = start_pilot("exit 3", kube, settings)
    wait_for_pods(kube, name, 2)  # the next one comes after some 10 s
    job = kube.get("Job", name)
    assert job is not None and not job["status"].get("conditions")
    kube.delete("Job", name)


def test_pilot_that_does_not_end_is_replaced(kube: Kube, settings: dict[str, str]) -> None:
    """As one on a lost node, it stays Terminating: here because it ignores the signal."""
    name = start_pilot("trap '' TERM; while :; do sleep 1; done", kube, settings)
    wait_for_pods(kube, name, 1)
    (first,) = pods_of(kube, name)
    pod = f"pod/{first['metadata']['name']}"
    kubectl("-n", kube.namespace, "wait", "--for=condition=Ready", pod, "--timeout=90s")
    time.sleep(1)  # the shell has come to the trap
    kube.delete("Pod", first["metadata"]["name"])
    wait_for_pods(kube, name, 2)
    assert [
        pod["metadata"]["name"] for pod in pods_of(kube, name) if pod["metadata"].get("deletionTimestamp")
    ]
    kube.delete("Job", name)
    for pod in pods_of(kube, name):
        kube.delete("Pod", pod["metadata"]["name"], grace_s=0)


def start_pilot(script: str, kube: Kube, settings: dict[str, str]) -> str:
    """The pilot's Job, but for its program. Returns the Job's name."""
    patch = {"spec": {"containers": [{"name": "slipway", "command": ["sh", "-c", script], "args": None}]}}
    resources = {"pilot": {"cpus": 0.05, "memory": "64Mi"}}
    s3 = {"secret": S3_SECRET}
    profile = {**CPU, "namespace": kube.namespace, "pod_template": patch, "resources": resources, "s3": s3}
    plan = kubernetes_plan(profile)
    run_id = f"bot-{uuid.uuid4().hex[:8]}"
    image = settings["SLIPWAY_TEST_BASE_IMAGE"]
    config_map, _, job = manifest.run_objects(plan, run_id, Images(pilot=image, train=image))
    kube.apply(config_map)
    kube.create(job)
    return str(job["metadata"]["name"])


def pods_of(kube: Kube, job: str) -> list[Object]:
    return kube.list("Pod", labels=f"batch.kubernetes.io/job-name={job}")


def wait_for_pods(kube: Kube, job: str, count: int) -> None:
    deadline = time.monotonic() + 90
    while len(pods_of(kube, job)) < count:
        assert time.monotonic() < deadline, f"{len(pods_of(kube, job))} pods"
        time.sleep(0.5)
