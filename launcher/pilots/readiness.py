"""Whether a run could be started on a cluster: asked before anything is made."""

from __future__ import annotations

from artifacts.store import Store
from launcher.errors import ClusterError
from launcher.kube import Kube, KubeError
from launcher.spec.kubernetes import KubernetesCluster


def require_ready(profile: KubernetesCluster, kube: Kube, store: Store) -> None:
    """Raises ClusterError for the first thing that is missing, with the command that would fix it."""
    space = profile.namespace
    _require_access(kube)
    if _is_missing(kube, "Namespace", space):
        way_out = f"`kubectl create namespace {space}`, then `kubectl apply -n {space} -k k8s/`"
        raise ClusterError(f"namespace {space}", "not on this cluster", way_out)
    try:
        kube.request("GET", "/apis/ray.io/v1")
    except KubeError as error:
        if error.status != 404:
            raise
        way_out = "`helm install kuberay-operator kuberay/kuberay-operator` (docs/operations.md)"
        raise ClusterError("KubeRay", "this cluster does not know RayJobs", way_out) from error
    for account in (profile.service_account, profile.pilot_service_account):
        if _is_missing(kube, "ServiceAccount", account):
            way_out = f"`kubectl apply -n {space} -k k8s/`"
            raise ClusterError(f"service account {account}", f"not in namespace {space}", way_out)
    for secret in _secrets(profile):
        if _is_missing(kube, "Secret", secret):
            way_out = f"`kubectl -n {space} create secret generic {secret} …` (docs/operations.md)"
            raise ClusterError(f"secret {secret}", f"not in namespace {space}", way_out)
    store.write_bytes("probe", b"")
    store.delete("probe")


def _require_access(kube: Kube) -> None:
    try:
        kube.version()
    except KubeError as error:
        if error.status not in (401, 403):
            raise
        way_out = "log in to the cluster again; `kubectl auth whoami` shows who you are"
        raise ClusterError("credentials", f"the API server refuses them ({error.reason})", way_out) from error


def _secrets(profile: KubernetesCluster) -> list[str]:
    names = [profile.s3.secret, *profile.image.pull_secrets]
    names += [item.secret for item in profile.secrets.values()]
    return list(dict.fromkeys(name for name in names if name))


def _is_missing(kube: Kube, kind: str, name: str) -> bool:
    """False also where one may not look: then the pods tell."""
    try:
        return kube.get(kind, name) is None
    except KubeError as error:
        if error.status == 403:
            return False
        raise
