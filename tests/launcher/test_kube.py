"""The API client against a server of the test's own, which answers as the real one does."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from launcher.errors import ClusterError
from launcher.kube import FIELD_MANAGER, Kube, KubeError, condition


class Server(http.server.ThreadingHTTPServer):
    """`answers` are given one after the other (status, body); `asked` is what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, str, Any]] = []

    def say(self, status: int, body: Any = None) -> None:
        self.answers.append((status, {} if body is None else body))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, self.headers.get("Content-Type", ""), body))
        status, answer = self.server.answers.pop(0)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "POST", "PATCH", "DELETE"):
    setattr(Handler, f"do_{method}", Handler.handle_any)


def refusal(status: int, reason: str, message: str = "no") -> tuple[int, dict[str, Any]]:
    return status, {
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": status,
    }


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def kube(server: Server, slept: list[float]) -> Kube:
    return connect(f"http://127.0.0.1:{server.server_address[1]}", slept)


def connect(host: str, slept: list[float]) -> Kube:
    from kubernetes import client

    settings = client.Configuration(host=host)
    settings.retries = False
    return Kube(client.ApiClient(settings), "ml", sleep=slept.append)


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plan"}}


def test_objects_go_in_and_out_as_they_are(kube: Kube, server: Server) -> None:
    odd = {**CONFIG, "data": {"a": "1"}, "unknownField": {"kept": [1, None, "ü"]}}
    server.say(200, odd)
    assert kube.get("ConfigMap", "plan") == odd
    assert server.asked[0][:2] == ("GET", "/api/v1/namespaces/ml/configmaps/plan")


def test_what_is_not_there_is_none(kube: Kube, server: Server) -> None:
    server.say(*refusal(404, "NotFound"))
    assert kube.get("RayJob", "gone") is None
    assert server.asked[0][1] == "/apis/ray.io/v1/namespaces/ml/rayjobs/gone"


def test_lists_carry_their_selectors_in_one_request(kube: Kube, server: Server) -> None:
    server.say(200, {"items": [CONFIG]})
    assert kube.list("Pod", labels="slipway/run=bot-1", fields="status.phase=Running") == [CONFIG]
    (asked,) = server.asked
    query = parse_qs(urlsplit(asked[1]).query)
    assert query["labelSelector"] == ["slipway/run=bot-1"]
    assert query["fieldSelector"] == ["status.phase=Running"]
    server.say(200, {"items": None})
    assert kube.list("Node") == []


def test_a_taken_name_is_told_by_its_reason(kube: Kube, server: Server) -> None:
    server.say(*refusal(409, "AlreadyExists", 'configmaps "plan" already exists'))
    with pytest.raises(KubeError, match="already exists") as refused:
        kube.create(CONFIG)
    assert (refused.value.status, refused.value.reason, refused.value.exit_code) == (409, "AlreadyExists", 3)


def test_apply_is_server_side_and_strict(kube: Kube, server: Server) -> None:
    server.say(200, CONFIG)
    kube.apply(CONFIG)
    method, path, content, body = server.asked[0]
    query = parse_qs(urlsplit(path).query)
    assert (method, content, body) == ("PATCH", "application/apply-patch+yaml", CONFIG)
    assert query["fieldManager"] == [FIELD_MANAGER] and query["fieldValidation"] == ["Strict"]


def test_a_deletion_means_one_object(kube: Kube, server: Server) -> None:
    server.say(200)
    assert kube.delete("Job", "train", uid="u-1", grace_s=0)
    options = server.asked[0][3]
    assert options["preconditions"] == {"uid": "u-1"} and options["gracePeriodSeconds"] == 0
    server.say(*refusal(409, "Conflict", "the UID in the precondition does not match"))
    assert not kube.delete("Job", "train", uid="u-2")
    server.say(*refusal(404, "NotFound"))
    assert not kube.delete("Job", "train")


def test_a_container_that_never_started_has_said_nothing(kube: Kube, server: Server) -> None:
    server.say(*refusal(400, "BadRequest", "container is waiting to start"))
    assert kube.pod_log("pod-1", container="slipway", tail_lines=20) == ""
    server.say(200, "öne\n".encode())
    assert kube.pod_log("pod-1") == "öne\n"


def test_an_overloaded_server_is_asked_again(kube: Kube, server: Server, slept: list[float]) -> None:
    for _ in range(2):
        server.say(*refusal(503, "ServiceUnavailable"))
    server.say(200, {"gitVersion": "v1.34.3"})
    assert kube.version() == "v1.34.3"
    assert slept == [0.5, 1.0]


def test_a_refusal_is_final(kube: Kube, server: Server, slept: list[float]) -> None:
    server.say(*refusal(403, "Forbidden"))
    with pytest.raises(KubeError):
        kube.list("Secret")
    assert len(server.asked) == 1 and slept == []


def test_a_server_that_never_answered_is_given_up_soon(slept: list[float]) -> None:
    kube = connect("http://127.0.0.1:9", slept)
    with pytest.raises(ClusterError, match="can't be reached") as failed:
        kube.version()
    assert not isinstance(failed.value, KubeError)
    assert slept == [0.5, 1.0]


def test_one_that_has_answered_before_is_waited_for(kube: Kube, server: Server, slept: list[float]) -> None:
    server.say(200, {"gitVersion": "v1.34.3"})
    kube.version()
    server.shutdown()
    server.server_close()
    with pytest.raises(ClusterError, match="can't be reached"):
        kube.version()
    assert slept == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_context_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    config = tmp_path / "config"
    config.write_text("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="context prod"):
        Kube.connect("ml", "prod")


def test_conditions() -> None:
    ready = {"type": "Ready", "status": "True"}
    body = {"status": {"conditions": [{"type": "Complete", "status": "False"}, ready]}}
    assert condition(body, "Ready") == ready
    assert condition(body, "Complete") is None
    assert condition({}, "Ready") is None
