"""The Ray dashboard of a run on this machine's loopback: a small HTTP proxy through the API server.

The dashboard wants a token. The proxy reads it from the cluster's Secret and adds it to each request, so that
it is never shown, stored or part of an address. Whoever reaches the proxy speaks with that token: it listens
on the loopback alone and answers only requests that were made to it by that address, from its own pages, so
that no other site in the browser can use it.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from launcher.backends.pods import RAY_CLUSTER, RAY_NODE_TYPE, RUN
from launcher.errors import ClusterError, Problem, UserError
from launcher.kube import Kube, Object
from launcher.pilots.tunnel import Tunnel

DASHBOARD_PORT = 8265
_BLOCK_BYTES = 64 * 1024
#: Headers of one hop, which the proxy sets itself.
_OWN_HEADERS = {"connection", "keep-alive", "proxy-connection", "authorization", "host"}


@contextlib.contextmanager
def open_dashboard(kube: Kube, run_id: str) -> Iterator[DashboardProxy]:
    """The dashboard of the run's Ray cluster. Raises UserError where it has none now."""
    pod, token = find_head(kube, run_id)
    proxy = DashboardProxy(lambda: Tunnel.open(kube, pod, DASHBOARD_PORT), token)
    try:
        yield proxy
    finally:
        proxy.close()


def find_head(kube: Kube, run_id: str) -> tuple[str, str]:
    """The name of the run's head pod, and its cluster's token."""
    heads = kube.list("Pod", labels=f"{RUN}={run_id},{RAY_NODE_TYPE}=head")
    running = [pod for pod in heads if pod.get("status", {}).get("phase") == "Running"]
    if not running:
        why = "its Ray cluster is still starting" if heads else "it has no Ray cluster now: only training has"
        way_out = f"`slipway status {run_id} --watch` shows how far it is"
        raise UserError(Problem(where="", what=f"dashboard of {run_id}", why=why, way_out=way_out))
    metadata = running[0]["metadata"]
    return metadata["name"], _token(kube.get("Secret", metadata["labels"][RAY_CLUSTER]))


def _token(secret: Object | None) -> str:
    """Of the Secret that the operator names after the cluster; empty where the cluster asks for none."""
    data = (secret or {}).get("data") or {}
    return base64.b64decode(data.get("auth_token", "")).decode()


class DashboardProxy:
    """Serves from the start. `connect` opens one connection to the dashboard; each request has its own."""

    def __init__(self, connect: Callable[[], Tunnel], token: str) -> None:
        handler = type("Handler", (_Handler,), {"connect": staticmethod(connect), "token": token})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="dashboard", daemon=True).start()

    def wait(self, over: Callable[[], bool]) -> None:
        while not over():
            threading.Event().wait(0.5)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Passes one request on, and the answer back as it comes: also streams and websockets."""

    connect: Callable[[], Tunnel]
    token: str

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        if not self._is_ours():
            return self.send_error(HTTPStatus.FORBIDDEN, "not a request of this dashboard's own pages")
        try:
            tunnel = self.connect()
        except ClusterError as error:
            return self.send_error(HTTPStatus.BAD_GATEWAY, "the Ray head can't be reached", str(error))
        with contextlib.closing(tunnel), contextlib.suppress(OSError):
            self._pass_on(tunnel)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal shows the address alone."""

    def _is_ours(self) -> bool:
        """Made to the loopback by its own name, and not by a page of another site."""
        assert isinstance(self.server, ThreadingHTTPServer)
        port = self.server.server_port
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin.removeprefix("http://") in hosts
        )

    def _pass_on(self, tunnel: Tunnel) -> None:
        tunnel.send(self._head())
        sending = threading.Thread(target=self._send_body, args=(tunnel,), daemon=True)
        sending.start()
        try:
            for data in tunnel.received():
                self.connection.sendall(data)
        except ClusterError as error:
            self.send_error(HTTPStatus.BAD_GATEWAY, "the Ray head does not answer", str(error))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)  # ends `_send_body`, which may wait for the browser
        sending.join()

    def _head(self) -> bytes:
        upgrade = self.headers.get("Upgrade")
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS]
        headers += [
            ("Host", f"127.0.0.1:{DASHBOARD_PORT}"),
            ("Connection", "Upgrade" if upgrade else "close"),
        ]
        if self.token:
            headers.append(("Authorization", f"Bearer {self.token}"))
        lines = [f"{self.command} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _send_body(self, tunnel: Tunnel) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := self.rfile.read1(_BLOCK_BYTES):
                tunnel.send(data)
