from __future__ import annotations

import datetime
import http.server
import threading
from pathlib import Path
from typing import ClassVar

from artifacts.local import LocalStore
from launcher.doctor.services import bucket, clock, registry
from launcher.spec.kubernetes import KubernetesCluster
from tests.launcher.doctor.standin import StandInKube


class Careless(LocalStore):
    """A store that ignores conditions, as some S3 services do."""

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        return super().write_bytes(key, data)


class Forgetful(LocalStore):
    def read_bytes(self, key: str) -> bytes:
        return b""


def test_a_sound_store_is_left_as_it_was(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert bucket(store).level == "ok"
    assert not list(store.list(""))


def test_a_store_that_ignores_conditional_writes(tmp_path: Path) -> None:
    check = bucket(Careless(tmp_path))
    assert check.level == "failure"
    assert "If-None-Match" in check.found


def test_a_store_that_loses_bytes(tmp_path: Path) -> None:
    assert bucket(Forgetful(tmp_path)).level == "failure"


def test_clocks() -> None:
    def at(offset_s: float) -> str:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_s)
        return clock(StandInKube(now=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))).level

    assert at(0) == "ok"
    assert at(-300) == "failure"
    assert at(300) == "failure"


class Registry(http.server.BaseHTTPRequestHandler):
    """Takes uploads for `/ml/` alone; what was begun is counted in `begun`, what was given up in `ended`."""

    begun: ClassVar[list[str]] = []
    ended: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        allowed = self.path.startswith("/v2/ml/")
        self.begun.append(self.path)
        self.send_response(202 if allowed else 403)
        self.send_header("Location", f"{self.path}one")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.ended.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_registry_is_asked_for_an_upload_that_is_given_up_again() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        assert registry(profile(f"{host}/ml")).level == "ok"
        assert Registry.ended == ["/v2/ml/blobs/uploads/one"]
        refused = registry(profile(f"{host}/others"))
        assert refused.level == "failure" and "403" in refused.found
        server.shutdown()
    assert "can't be reached" in registry(profile(f"{host}/ml")).found


def profile(repository: str) -> KubernetesCluster:
    return KubernetesCluster.model_validate(
        {
            "backend": "kubernetes",
            "store": "s3://bucket/runs",
            "image": {"registry": repository, "insecure": True},
            "nodes": {"cpus": 8.0, "memory": "32Gi"},
        }
    )
