from __future__ import annotations

import pytest

from launcher.doctor import cluster
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.doctor.standin import StandInKube, definition, named

PROFILE = {
    "backend": "kubernetes",
    "namespace": "ml",
    "store": "s3://bucket/runs",
    "image": {"registry": "registry.example.com/ml"},
    "nodes": {"cpus": 8.0, "memory": "32Gi"},
}


def profile(**changes: object) -> KubernetesCluster:
    return KubernetesCluster.model_validate({**PROFILE, **changes})


@pytest.mark.parametrize(
    ("version", "level"), [("v1.34.3", "ok"), ("v1.29.0-eks-1", "ok"), ("v1.28.9", "failure")]
)
def test_an_old_server_is_told(version: str, level: str) -> None:
    assert cluster.reachable(StandInKube(version=version)).level == level


def test_namespace_missing_or_of_another_level() -> None:
    assert cluster.namespace(StandInKube()).level == "failure"
    assert cluster.namespace(StandInKube([named("Namespace", "ml")])).level == "warning"
    restricted = named("Namespace", "ml")
    restricted["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    assert cluster.namespace(StandInKube([restricted])).level == "ok"


@pytest.mark.parametrize(
    ("job_fields", "cluster_fields", "level", "words"),
    [
        (("preRunningDeadlineSeconds",), ("authOptions", "historyServerOptions"), "ok", "1.7"),
        (("preRunningDeadlineSeconds",), ("authOptions",), "ok", "1.6"),
        ((), ("authOptions",), "ok", "1.5"),
        ((), (), "failure", "authOptions"),
    ],
)
def test_kuberays_release_by_its_definitions(
    job_fields: tuple[str, ...], cluster_fields: tuple[str, ...], level: str, words: str
) -> None:
    definitions = [
        definition("rayjobs.ray.io", *job_fields),
        definition("rayclusters.ray.io", *cluster_fields),
    ]
    check = cluster.kuberay(StandInKube(definitions))
    assert check.level == level
    assert words in check.found


def test_a_cluster_without_kuberay() -> None:
    check = cluster.kuberay(StandInKube([definition("rayclusters.ray.io", "authOptions")]))
    assert check.level == "failure"
    assert "not installed: no rayjobs.ray.io" in check.found
    assert "helm install" in check.way_out


def test_kuberay_for_a_user_who_may_not_see_definitions() -> None:
    assert cluster.kuberay(StandInKube(refused=("CustomResourceDefinition",))).level == "warning"


def test_permissions_name_what_is_refused() -> None:
    checks = list(cluster.permissions(StandInKube(denied=(("create", "jobs"), ("list", "events")))))
    assert [(check.level, check.found) for check in checks] == [
        ("failure", "may not create jobs"),
        ("warning", "may not list events"),
    ]
    assert [check.level for check in cluster.permissions(StandInKube())] == ["ok"]


def test_secrets_are_looked_at_for_their_keys_alone() -> None:
    wanted = profile(s3={"secret": "s3"}, secrets={"HF_TOKEN": {"secret": "hub", "key": "token"}})
    keys = {"AWS_ACCESS_KEY_ID": "c2VjcmV0", "AWS_SECRET_ACCESS_KEY": "c2VjcmV0"}
    checks = list(cluster.secrets(StandInKube([named("Secret", "s3", data=keys)]), wanted))
    assert [(check.what, check.level) for check in checks] == [("Secret hub", "failure"), ("Secret s3", "ok")]
    assert "kubectl -n ml create secret generic hub --from-literal=token=…" in checks[0].way_out
    assert "c2VjcmV0" not in str(checks)
    without = list(cluster.secrets(StandInKube([named("Secret", "s3", data={})]), wanted))
    assert without[1].found == "has no AWS_ACCESS_KEY_ID"


def test_named_objects_that_are_absent() -> None:
    wanted = profile(queue={"kueue": "team", "priority_class": "high"}, cache={"claim": "models"})
    checks = {check.what: check for check in cluster.named_objects(StandInKube(), wanted)}
    assert all(check.level == "failure" for check in checks.values())
    assert {"queue team", "PriorityClass high", "PersistentVolumeClaim models"} <= set(checks)


def test_a_queue_that_admits_nothing() -> None:
    inactive = named("LocalQueue", "team", status={"conditions": [{"type": "Active", "status": "False"}]})
    assert cluster.queue(StandInKube([inactive]), "team").level == "warning"
    active = named(
        "LocalQueue",
        "team",
        status={"conditions": [{"type": "Active", "status": "True"}], "pendingWorkloads": 3},
    )
    assert cluster.queue(StandInKube([active]), "team").found == "active, 3 waiting"


def test_quota_against_what_a_job_takes() -> None:
    status = {"hard": {"requests.cpu": "16", "pods": "10"}, "used": {"requests.cpu": "9500m", "pods": "2"}}
    kube = StandInKube([named("ResourceQuota", "team", status=status)])
    assert [check.level for check in cluster.quota(kube, {"requests.cpu": 6.5, "pods": 8})] == ["ok"]
    (short,) = cluster.quota(kube, {"requests.cpu": 7, "pods": 4})
    assert short.level == "failure"
    assert "leaves 6.5 of requests.cpu, the job needs 7" in short.found


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("64Gi", 64 * 2.0**30), ("8", 8.0), ("1e3", 1000.0), ("2k", 2000.0)]
)
def test_quantities(text: str, number: float) -> None:
    assert cluster.amount(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "1x", "-1"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        cluster.amount(text)


def test_a_job_that_publishes_needs_a_token_for_the_hub() -> None:
    missing = cluster.hub_token(profile())
    assert missing.level == "failure" and "kubectl -n ml create secret generic hub" in missing.way_out
    named = cluster.hub_token(profile(secrets={"HF_TOKEN": {"secret": "hub", "key": "token"}}))
    assert (named.level, named.found) == ("ok", "HF_TOKEN comes from token of Secret hub")
