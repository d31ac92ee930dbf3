"""`launcher.pilots.dashboard`: the proxy adds the token, and serves nobody but its own pages."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from launcher.errors import ClusterError, UserError
from launcher.pilots.dashboard import DashboardProxy, find_head
from tests.launcher.fake_kube import FakeKube

TOKEN = "t0p-secret-token"
ANSWER = b"x" * 300_000


class Ray(BaseHTTPRequestHandler):
    """Stands in for the dashboard on the head: it wants the token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send_error(401)
        if self.headers.get("Upgrade"):
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            self.wfile.write(self.rfile.read1(100).upper())  # type: ignore[attr-defined]
            self.close_connection = True
            return
        self._answer(ANSWER)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


class Pipe:
    """A tunnel that is a plain connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def received(self) -> Iterator[bytes]:
        while data := self.socket.recv(4096):
            yield data

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def ray() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ray)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(ray: int) -> Iterator[DashboardProxy]:
    proxy = DashboardProxy(lambda: Pipe(ray), TOKEN)  # type: ignore[arg-type, return-value]
    yield proxy
    proxy.close()


def ask(
    proxy: DashboardProxy, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    address = proxy.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, "/api/jobs/", body, {name.title(): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_token_is_added_and_whole_answers_come_back(proxy: DashboardProxy) -> None:
    assert ask(proxy) == (200, ANSWER)
    assert TOKEN not in proxy.url


def test_a_token_of_the_browser_is_not_passed_on(proxy: DashboardProxy) -> None:
    assert ask(proxy, authorization="Bearer wrong")[0] == 200


def test_a_body_is_passed_on(proxy: DashboardProxy) -> None:
    assert ask(proxy, "POST", ANSWER) == (200, ANSWER)


def test_several_requests_at_once(proxy: DashboardProxy) -> None:
    answers: list[tuple[int, bytes]] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(proxy))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [(200, ANSWER)] * 8


def test_a_websocket_goes_both_ways(proxy: DashboardProxy) -> None:
    host, port = proxy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as browser:
        headers = f"Host: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        browser.sendall(f"GET /ws HTTP/1.1\r\n{headers}\r\n".encode())
        assert browser.recv(1000).startswith(b"HTTP/1.1 101")
        browser.sendall(b"hello")
        received = b""
        while data := browser.recv(1000):
            received += data
        assert received.endswith(b"HELLO")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example.com"},  # a name that was rebound to the loopback
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
    ],
)
def test_other_sites_are_refused(proxy: DashboardProxy, headers: dict[str, str]) -> None:
    assert ask(proxy, **headers)[0] == 403
    assert ask(proxy, "POST", b"{}", **headers)[0] == 403


def test_its_own_pages_may_post(proxy: DashboardProxy) -> None:
    assert ask(proxy, "POST", b"{}", origin=proxy.url) == (200, b"{}")


def test_a_head_out_of_reach_is_a_bad_gateway() -> None:
    def refuse() -> Any:
        raise ClusterError("pod head", "connection refused", "try again")

    proxy = DashboardProxy(refuse, TOKEN)
    try:
        status, body = ask(proxy)
    finally:
        proxy.close()
    assert status == 502 and b"connection refused" in body


def test_it_listens_on_the_loopback_alone(proxy: DashboardProxy) -> None:
    assert proxy.url.startswith("http://127.0.0.1:")


# Finding the head ------------------------------------------------------------------------------------------


def head(phase: str) -> dict[str, Any]:
    labels = {"slipway/run": "bot-1", "ray.io/node-type": "head", "ray.io/cluster": "slipway-train-a-xyz"}
    return {"kind": "Pod", "metadata": {"name": "head", "labels": labels}, "status": {"phase": phase}}


def test_the_token_is_that_of_the_secret_named_after_the_cluster() -> None:
    kube = FakeKube()
    kube.objects[("Pod", "head")] = head("Running")
    data = {"auth_token": base64.b64encode(TOKEN.encode()).decode()}
    kube.objects[("Secret", "slipway-train-a-xyz")] = {"metadata": {}, "data": data}
    assert find_head(kube, "bot-1") == ("head", TOKEN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phases", "why"), [([], "it has no Ray cluster now"), (["Pending"], "its Ray cluster is still starting")]
)
def test_without_a_head_it_says_why(phases: list[str], why: str) -> None:
    kube = FakeKube()
    for phase in phases:
        kube.objects[("Pod", "head")] = head(phase)
    with pytest.raises(UserError, match=f"{why}.*slipway status bot-1 --watch"):
        find_head(kube, "bot-1")  # type: ignore[arg-type]
