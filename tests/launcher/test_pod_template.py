from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from launcher.backends.pod_template import Pod, merge, pod_template, quantity
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.kubernetes_plans import CPU, GPU

Object = dict[str, Any]
POD = Pod(
    image="image@sha256:" + "a" * 64,
    plan="slipway-plan-bot",
    cpus=1.5,
    memory_bytes=2 * 1024**3,
    labels={"slipway/run": "bot"},
    service_account="slipway-stage",
)


def made(profile: Object, **changes: Any) -> Object:
    return pod_template(KubernetesCluster.model_validate(profile), dataclasses.replace(POD, **changes))


def container(template: Object) -> Object:
    (only,) = template["spec"]["containers"]
    return only


def variables(template: Object) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(template)["env"]}


def test_store_and_its_credentials() -> None:
    profile = {**CPU, "s3": {**CPU["s3"], "endpoint_in_cluster": "http://s3.internal:9000"}}
    found = variables(made(profile))
    assert found["AWS_ENDPOINT_URL_S3"] == "http://s3.internal:9000"
    assert found["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "slipway-s3", "key": "AWS_ACCESS_KEY_ID"}}
    assert found["AWS_SESSION_TOKEN"]["secretKeyRef"]["optional"] is True


def test_workload_identity_needs_no_secret() -> None:
    found = variables(made({**GPU, "secrets": {}}))
    assert not [name for name, value in found.items() if "secretKeyRef" in value]


def test_secrets_of_the_profile_are_references() -> None:
    assert variables(made(GPU))["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "HF_TOKEN" not in variables(made(GPU, secrets=False))


def test_profile_wins_over_defaults() -> None:
    found = variables(made({**CPU, "environment": {"OMP_NUM_THREADS": "7"}}))
    assert found["OMP_NUM_THREADS"] == "7"
    assert variables(made(CPU))["OMP_NUM_THREADS"] == "1"


def test_resources() -> None:
    amounts = container(made(CPU, devices={"nvidia.com/gpu": "8"}))["resources"]
    assert amounts["requests"] == {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "8"}
    assert amounts["limits"] == amounts["requests"]


def test_only_pods_that_ask_for_gpus_see_any() -> None:
    assert variables(made(GPU))["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(made(GPU, devices={"nvidia.com/gpu": "8"}))
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(made(CPU))


def test_pull_secrets_and_scheduler() -> None:
    spec = made({**GPU, "queue": {"scheduler_name": "volcano"}})["spec"]
    assert spec["schedulerName"] == "volcano"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({"size": "50Gi"}, {"emptyDir": {"sizeLimit": "50Gi"}}),
        ({"claim": "models"}, {"persistentVolumeClaim": {"claimName": "models"}}),
        ({"host_path": "/nvme"}, {"hostPath": {"path": "/nvme", "type": "DirectoryOrCreate"}}),
    ],
)
def test_cache(cache: Object, volume: Object) -> None:
    volumes = made({**CPU, "cache": cache})["spec"]["volumes"]
    assert {"name": "cache", **volume} in volumes


def test_patch_merges_containers_by_name_and_comes_last() -> None:
    patch = {
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "dnsPolicy": "None",
            "automountServiceAccountToken": None,
            "containers": [
                {
                    "name": "slipway",
                    "env": [
                        {"name": "HTTPS_PROXY", "value": "http://proxy"},
                        {"name": "HOME", "value": "/x"},
                    ],
                    "volumeMounts": [{"name": "certificates", "mountPath": "/etc/ssl/company"}],
                },
                {"name": "exporter", "image": "exporter@sha256:0"},
            ],
            "volumes": [{"name": "certificates", "configMap": {"name": "company"}}],
        },
    }
    before, after = made(CPU), made({**CPU, "pod_template": patch})
    own, added = after["spec"]["containers"]
    assert added == {"name": "exporter", "image": "exporter@sha256:0"}
    assert own["image"] == POD.image
    assert len(own["env"]) == len(container(before)["env"]) + 1
    assert {"name": "HOME", "value": "/x"} in own["env"]
    assert own["volumeMounts"][-1]["mountPath"] == "/etc/ssl/company"
    assert len(after["spec"]["volumes"]) == len(before["spec"]["volumes"]) + 1
    assert "automountServiceAccountToken" not in after["spec"]
    assert after["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}


@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1}, {"a": None}, {}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": []}, {"env": [{"name": "A", "value": "1"}]}),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "value": None, "valueFrom": {}}]},
            {"env": [{"name": "A", "valueFrom": {}}]},
        ),
        ({"env": [{"name": "A"}]}, {"env": ["B"]}, {"env": ["B"]}),  # for the API server to refuse
        (1, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_merge(value: Any, patch: Any, result: Any) -> None:
    assert merge(value, patch) == result


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(6 * 1024**3, "6Gi"), (1536 * 1024**2, "1536Mi"), (3 * 1024, "3Ki"), (1000, "1000")],
)
def test_quantity(size_bytes: int, text: str) -> None:
    assert quantity(size_bytes) == text
