"""One namespace of a Kubernetes API server: objects in and out as plain JSON values.

A thin layer over the official client: it finds the configuration and signs requests; objects stay the
dictionaries that the API speaks, which is several times faster than its model classes and loses no field.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from launcher.errors import ClusterError

Object = dict[str, Any]

#: The resource that NVIDIA's device plugin counts GPUs by.
GPU = "nvidia.com/gpu"

#: kind -> (API group and version, plural, namespaced)
KINDS = {
    "ConfigMap": ("v1", "configmaps", True),
    "Event": ("v1", "events", True),
    "Namespace": ("v1", "namespaces", False),
    "Node": ("v1", "nodes", False),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", True),
    "Pod": ("v1", "pods", True),
    "ResourceQuota": ("v1", "resourcequotas", True),
    "Secret": ("v1", "secrets", True),
    "Service": ("v1", "services", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "Deployment": ("apps/v1", "deployments", True),
    "Job": ("batch/v1", "jobs", True),
    "LocalQueue": ("kueue.x-k8s.io/v1beta1", "localqueues", True),
    "Lease": ("coordination.k8s.io/v1", "leases", True),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies", True),
    "PriorityClass": ("scheduling.k8s.io/v1", "priorityclasses", False),
    "RayCluster": ("ray.io/v1", "rayclusters", True),
    "RayJob": ("ray.io/v1", "rayjobs", True),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings", True),
    "SelfSubjectAccessReview": ("authorization.k8s.io/v1", "selfsubjectaccessreviews", False),
}

FIELD_MANAGER = "slipway"
TIMEOUT_S = 30.0
#: Pauses between attempts at a server that does not answer, is overloaded or is being replaced.
_RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: A server that has never answered is more likely a mistake than a hiccup.
_FIRST_RETRIES = 2
_TRANSIENT = (429, 500, 502, 503, 504)


class KubeError(ClusterError):
    """The API server's refusal: `status` (HTTP) and `reason` (`NotFound`, `AlreadyExists`, `Forbidden`…)."""

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(what, message or reason)


class Kube:
    """Requests to one API server, in one namespace unless the kind has none.

    Every method raises KubeError for a refusal and ClusterError where the server can't be reached.
    """

    def __init__(self, client: Any, namespace: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self.namespace, self._sleep = client, namespace, sleep
        self._has_answered = False

    @classmethod
    def connect(cls, namespace: str, context: str | None = None) -> Kube:
        """By the service account in a pod, else by kubeconfig (KUBECONFIG, ~/.kube/config). Raises
        ClusterError for a context that is not there."""
        import os

        from kubernetes import client, config

        settings = client.Configuration()
        try:
            if context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    context=context, client_configuration=settings
                )
        except config.ConfigException as error:
            way_out = "`kubectl config get-contexts` lists them; KUBECONFIG names another file"
            raise ClusterError(f"context {context or '(current)'}", str(error), way_out) from error
        settings.retries = False
        return cls(client.ApiClient(settings), namespace)

    def get(self, kind: str, name: str) -> Object | None:
        """The object, None where there is none of that name."""
        try:
            return self.request("GET", self.path(kind, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Objects that match a label selector and a field selector, in one request."""
        query = {"labelSelector": labels, "fieldSelector": fields, "resourceVersion": "0"}
        path = f"{self.path(kind)}?{urlencode({name: value for name, value in query.items() if value})}"
        items: list[Object] = self.request("GET", path).get("items") or []
        return items

    def create(self, body: Object, *, dry_run: bool = False) -> Object:
        """Raises KubeError with reason `AlreadyExists` where the name is taken."""
        suffix = "?dryRun=All&fieldValidation=Strict" if dry_run else "?fieldValidation=Strict"
        return self.request("POST", self.path(body["kind"]) + suffix, body)

    def apply(self, body: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply: made or brought to this, what others have set stays."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = f"{self.path(body['kind'], body['metadata']['name'])}?{urlencode(query)}"
        return self.request("PATCH", path, body, content="application/apply-patch+yaml")

    def patch(self, kind: str, name: str, patch: Object) -> Object:
        """JSON merge patch."""
        return self.request("PATCH", self.path(kind, name), patch, content="application/merge-patch+json")

    def delete(
        self, kind: str, name: str, *, uid: str | None = None, grace_s: int | None = None, wait: bool = False
    ) -> bool:
        """False where it is not there, or is another one than `uid`. With `wait` its dependents go first."""
        options: Object = {"propagationPolicy": "Foreground" if wait else "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self.request("DELETE", self.path(kind, name), options)
        except KubeError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    def pod_log(self, pod: str, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """What a container has written so far, empty where there is nothing yet."""
        query = {"container": container, "tailLines": tail_lines}
        path = f"{self.path('Pod', pod)}/log?{urlencode({k: v for k, v in query.items() if v is not None})}"
        try:
            return self._send("GET", path, None, "").decode("utf-8", errors="replace")
        except KubeError as error:
            if error.status in (400, 404):
                return ""
            raise

    def websocket(self, path: str, protocol: str) -> Any:
        """A connected `websocket.WebSocket` to a path of the API server, as port-forwarding speaks it."""
        from kubernetes.stream import ws_client
        from websocket import WebSocketBadStatusException, WebSocketException

        request = self._client.param_serialize("GET", path, auth_settings=["BearerToken"])
        headers = {name.lower(): value for name, value in request[2].items()}
        headers["sec-websocket-protocol"] = protocol
        try:
            url = ws_client.get_websocket_url(request[1])  # type: ignore[no-untyped-call]
            return ws_client.create_websocket(self._client.configuration, url, headers)  # type: ignore[no-untyped-call]
        except WebSocketBadStatusException as error:
            raise _refusal("GET", path, error.status_code, None, error.resp_body or b"") from error
        except (WebSocketException, OSError) as error:
            raise ClusterError(f"GET {path}", f"no connection ({error})", "try again") from error

    def version(self) -> str:
        """The server's version, as `v1.34.3`."""
        return str(self.request("GET", "/version")["gitVersion"])

    def path(self, kind: str, name: str = "") -> str:
        group, plural, namespaced = KINDS[kind]
        root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        space = f"/namespaces/{self.namespace}" if namespaced else ""
        return f"{root}{space}/{plural}" + (f"/{name}" if name else "")

    def request(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json"
    ) -> Object:
        answer: Object = json.loads(self._send(method, path, body, content) or b"{}")
        return answer

    def _send(self, method: str, path: str, body: Any, content: str) -> bytes:
        delays_s = _RETRY_DELAYS_S if self._has_answered else _RETRY_DELAYS_S[:_FIRST_RETRIES]
        for delay_s in (*delays_s, None):
            try:
                answer = self._send_once(method, path, body, content)
                self._has_answered = True
                return answer
            except (KubeError, ClusterError) as error:
                transient = not isinstance(error, KubeError) or error.status in _TRANSIENT
                if delay_s is None or not transient:
                    raise
            self._sleep(delay_s)
        raise AssertionError("unreachable")

    def _send_once(self, method: str, path: str, body: Any, content: str) -> bytes:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", **({"Content-Type": content} if body is not None else {})}
        resource, _, query = path.partition("?")
        host = self._client.configuration.host
        try:
            request = self._client.param_serialize(
                method, resource, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            _, url, *rest = request
            response = self._client.call_api(
                method, f"{url}?{query}" if query else url, *rest, _request_timeout=TIMEOUT_S
            )
            data: bytes = response.read() or b""
        except (ApiException, HTTPError) as error:
            why = f"the API server at {host} can't be reached ({type(error).__name__})"
            way_out = "check the context, the network and `kubectl version`"
            raise ClusterError(f"{method} {resource}", why, way_out) from error
        if not 200 <= response.status <= 299:
            raise _refusal(method, resource, response.status, response.reason, data)
        return data


def _refusal(method: str, resource: str, status: int, reason: str | None, body: bytes) -> KubeError:
    try:
        said = json.loads(body)
    except ValueError:
        said = {}
    reason = str(said.get("reason") or reason or status)
    return KubeError(f"{method} {resource}", status, reason, str(said.get("message") or ""))


def condition(body: Object, kind: str) -> Object | None:
    """The condition of that type in an object's status, where it is `True`."""
    found: Iterator[Object] = iter(body.get("status", {}).get("conditions") or ())
    return next((item for item in found if item.get("type") == kind and item.get("status") == "True"), None)
