"""What the API server says: versions, KubeRay's definitions, permissions, and the objects a profile names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from launcher.doctor.check import Check, failure, ok, warning
from launcher.errors import ClusterError
from launcher.kube import KINDS, Kube, KubeError, Object, condition
from launcher.spec.kubernetes import KubernetesCluster

#: Sidecars and podFailurePolicy as the manifests use them are stable from here on.
OLDEST_KUBERNETES = (1, 29)
#: The Pod Security Standard that everything here conforms to.
POD_SECURITY = "restricted"

INSTALL_KUBERAY = "helm install kuberay-operator kuberay/kuberay-operator (docs/operations.md)"
PREREQUISITES = "kubectl apply -k k8s/ (docs/operations.md says how to choose the namespace)"

#: What a person who submits does in the namespace: (verb, kind, needed to submit at all).
PERMISSIONS = (
    ("create", "ConfigMap", True),
    ("create", "Job", True),
    ("delete", "Job", True),
    ("get", "Job", True),
    ("list", "Pod", True),
    ("list", "Event", False),
    ("list", "RayJob", True),
    ("delete", "RayJob", False),
    ("get", "Secret", False),
)

#: A field that a release of KubeRay brought -> that release, newest first.
_MILESTONES = (
    ("rayclusters.ray.io", ("historyServerOptions",), "1.7"),
    ("rayjobs.ray.io", ("preRunningDeadlineSeconds",), "1.6"),
    ("rayclusters.ray.io", ("authOptions",), "1.5"),
)


def reachable(kube: Kube) -> Check:
    """The server answers, and is new enough."""
    what = "API server"
    try:
        version = kube.version()
    except KubeError as error:
        if error.status in (401, 403):
            return _refused(what, error)
        return failure(what, str(error))
    except ClusterError as error:
        return failure(what, str(error))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        return failure(what, f"Kubernetes {version} is older than {oldest}", "upgrade the cluster")
    return ok(what, f"Kubernetes {version}")


def namespace(kube: Kube) -> Check:
    what = f"namespace {kube.namespace}"
    try:
        found = kube.get("Namespace", kube.namespace)
    except KubeError as error:
        if error.status == 401:
            return _refused(what, error)
        return warning(what, f"may not be looked at ({error.reason})")
    if found is None:
        return failure(what, "is not there", PREREQUISITES)
    labels = found["metadata"].get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "")
    if level != POD_SECURITY:
        way_out = f"kubectl label ns {kube.namespace} pod-security.kubernetes.io/enforce={POD_SECURITY}"
        return warning(what, f"is there, but allows pods that are not {POD_SECURITY}", way_out)
    return ok(what, f"is there, level {level}")


def kuberay(kube: Kube) -> Check:
    """The definitions of RayJob and RayCluster, and the release that they come from."""
    what = "KubeRay"
    try:
        found = {name: kube.get("CustomResourceDefinition", name) for name, _, _ in _MILESTONES}
    except KubeError as error:
        if error.status != 403:
            return failure(what, str(error))
        return _kuberay_by_listing(kube)
    if missing := sorted(name for name, crd in found.items() if crd is None):
        return failure(what, f"is not installed: no {missing[0]}", INSTALL_KUBERAY)
    for name, path, release in _MILESTONES:
        if _knows(found[name] or {}, path):
            return ok(what, f"{release} or newer, by its resource definitions")
    why = "its definitions know no authOptions, so the dashboard of a run would be open to everybody"
    return failure(what, why, "upgrade it to 1.5.1 or newer, with its CRDs (helm does not upgrade those)")


def permissions(kube: Kube) -> Iterator[Check]:
    """What this user may do in the namespace, asked of the server itself."""
    refused = [(verb, kind, needed) for verb, kind, needed in PERMISSIONS if not _may(kube, verb, kind)]
    what = "permissions"
    for verb, kind, needed in refused:
        plural = KINDS[kind][1]
        way_out = f"bind the Role slipway-user of k8s/ to this user in {kube.namespace}"
        yield (failure if needed else warning)(what, f"may not {verb} {plural}", way_out)
    if not refused:
        yield ok(what, f"all {len(PERMISSIONS)} that submitting and watching need")


def named_objects(kube: Kube, profile: KubernetesCluster) -> Iterator[Check]:
    """Service accounts, Secrets, queue, priority class and claim that the profile names."""
    for account in (profile.service_account, profile.pilot_service_account):
        yield _there(kube, "ServiceAccount", account, PREREQUISITES)
    yield from secrets(kube, profile)
    if profile.queue.kueue:
        yield queue(kube, profile.queue.kueue)
    if profile.queue.priority_class:
        yield _there(kube, "PriorityClass", profile.queue.priority_class, "create it, or leave it out")
    if profile.cache.claim:
        yield _there(
            kube, "PersistentVolumeClaim", profile.cache.claim, "create it, or leave cache.claim out"
        )


def secrets(kube: Kube, profile: KubernetesCluster) -> Iterator[Check]:
    """The Secrets are there and have the keys that pods will read. Values are not kept."""
    wanted: dict[str, set[str]] = {name: set() for name in profile.image.pull_secrets}
    if profile.s3.secret:
        wanted.setdefault(profile.s3.secret, set()).update(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    for reference in profile.secrets.values():
        wanted.setdefault(reference.secret, set()).add(reference.key)
    for name, keys in sorted(wanted.items()):
        yield _secret(kube, name, keys)


def hub_token(profile: KubernetesCluster) -> Check:
    """For a job that publishes to a hub: its pods get a token. `secrets` looks whether it is there."""
    what = "hub token"
    reference = profile.secrets.get("HF_TOKEN")
    if reference is None:
        way_out = (
            f"kubectl -n {profile.namespace} create secret generic hub --from-literal=token=…, and "
            "`secrets: {HF_TOKEN: {secret: hub, key: token}}` in the profile"
        )
        return failure(what, "the job publishes to a hub, and the profile gives pods no HF_TOKEN", way_out)
    return ok(what, f"HF_TOKEN comes from {reference.key} of Secret {reference.secret}")


def queue(kube: Kube, name: str) -> Check:
    what = f"queue {name}"
    try:
        found = kube.get("LocalQueue", name)
    except KubeError as error:
        return failure(what, str(error))
    if found is None:
        way_out = "kubectl get localqueues -A lists those there are; Kueue's page says how to make one"
        return failure(what, f"no such LocalQueue in {kube.namespace}, or Kueue is not installed", way_out)
    active = condition(found, "Active")
    pending = found.get("status", {}).get("pendingWorkloads", 0)
    if active is None:
        return warning(what, "is there, but not active: nothing will be admitted", "kubectl describe it")
    return ok(what, f"active, {pending} waiting")


def quota(kube: Kube, wanted: dict[str, float]) -> Iterator[Check]:
    """Whether the namespace's quotas leave room for `wanted` (resource as in a quota's `hard` -> amount)."""
    what = "quota"
    try:
        quotas = kube.list("ResourceQuota")
    except KubeError as error:
        yield warning(what, f"may not be looked at ({error.reason})")
        return
    short = list(_shortages(quotas, wanted))
    yield from (failure(what, text, "ask for more, use fewer workers, or wait") for text in short)
    if not short:
        yield ok(what, f"room for the job in {len(quotas)} quotas" if quotas else "none is set")


def _shortages(quotas: Iterable[Object], wanted: dict[str, float]) -> Iterator[str]:
    for item in quotas:
        status = item.get("status", {})
        for resource, hard in (status.get("hard") or {}).items():
            left = amount(hard) - amount((status.get("used") or {}).get(resource, "0"))
            need = wanted.get(resource, 0.0)
            if need > left:
                yield f"{item['metadata']['name']} leaves {left:g} of {resource}, the job needs {need:g}"


_SUFFIXES = {
    "m": 1e-3,
    **{"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    **{"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50},
}


def _refused(what: str, error: KubeError) -> Check:
    why = f"the API server does not accept these credentials ({error.reason}): expired, or of another cluster"
    return failure(what, why, "log in again (`kubectl get pods` must work), then try again")


def amount(quantity: str | float) -> float:
    """A Kubernetes quantity (`500m`, `64Gi`, `8`) as a number. Raises ValueError."""
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)([A-Za-z]*)", str(quantity))
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"not a quantity: {quantity!r}")
    return float(match[1]) * _SUFFIXES[match[2]]


def _knows(crd: Object, path: tuple[str, ...]) -> bool:
    """Whether the definition's `spec` has that field, in a version that is served."""
    for version in crd["spec"]["versions"]:
        schema: Any = version.get("schema", {}).get("openAPIV3Schema", {})
        for name in ("spec", *path):
            schema = (schema.get("properties") or {}).get(name)
            if schema is None:
                break
        else:
            return bool(version.get("served"))
    return False


def _kuberay_by_listing(kube: Kube) -> Check:
    """For users who may not see the definitions: is the API served at all?"""
    try:
        kube.list("RayJob")
    except KubeError as error:
        if error.status == 404:
            return failure("KubeRay", "is not installed: the server has no RayJobs", INSTALL_KUBERAY)
        return failure("KubeRay", str(error))
    return warning("KubeRay", "is installed; its definitions, and so its release, may not be looked at")


def _may(kube: Kube, verb: str, kind: str) -> bool:
    group_version, plural, _ = KINDS[kind]
    group = group_version.partition("/")[0] if "/" in group_version else ""
    attributes = {"namespace": kube.namespace, "verb": verb, "group": group, "resource": plural}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "metadata": {},
        "spec": {"resourceAttributes": attributes},
    }
    return bool(kube.create(review)["status"].get("allowed"))


def _there(kube: Kube, kind: str, name: str, way_out: str) -> Check:
    what = f"{kind} {name}"
    try:
        found = kube.get(kind, name)
    except KubeError as error:
        return warning(what, f"may not be looked at ({error.reason})")
    where = f"in {kube.namespace}" if KINDS[kind][2] else "there"
    return ok(what, "is there") if found else failure(what, f"is not {where}", way_out)


def _secret(kube: Kube, name: str, keys: set[str]) -> Check:
    what = f"Secret {name}"
    literals = " ".join(f"--from-literal={key}=…" for key in sorted(keys)) or "…"
    way_out = f"kubectl -n {kube.namespace} create secret generic {name} {literals}"
    try:
        found = kube.get("Secret", name)
    except KubeError as error:
        return warning(what, f"may not be looked at ({error.reason})")
    if found is None:
        return failure(what, f"is not in {kube.namespace}", way_out)
    if missing := sorted(keys - set(found.get("data") or {})):
        return failure(what, f"has no {missing[0]}", way_out)
    return ok(what, "is there" + (f", with {', '.join(sorted(keys))}" if keys else ""))
