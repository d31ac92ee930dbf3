"""`artifacts.s3` against a real service, and what it does when the network or the process fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from artifacts.manifest import ArtifactWriter, hash_file
from artifacts.s3 import S3Store
from artifacts.store import StoreError, open_store
from tests.artifacts.store_conformance import LARGE, ROOT, StoreConformance, keys

PART_BYTES = 5 * 1024 * 1024


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    if "SLIPWAY_TEST_STORE" not in os.environ:
        pytest.exit("no store to test on: set SLIPWAY_TEST_STORE to s3://bucket/prefix", returncode=2)
    if endpoint := os.environ.get("SLIPWAY_TEST_S3_ENDPOINT"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("SLIPWAY_S3_PART_BYTES", str(PART_BYTES))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")


@pytest.fixture
def uri() -> str:
    return f"{os.environ['SLIPWAY_TEST_STORE']}/store-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(uri: str) -> Iterator[S3Store]:
    store = open_store(uri)
    assert isinstance(store, S3Store)
    yield store
    for write in store.unfinished(-60):
        store.discard(write)
    store.delete_many(keys(store))


class TestConformance(StoreConformance):
    pass


class Proxy:
    """A TCP proxy on this machine that can cut connections. Counts the bytes that clients send."""

    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        self._to = (address.hostname, address.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent_bytes = 0
        self.cuts: list[int] = []  # for each of the next connections: bytes of answers until it breaks
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            cut = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client, cut), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                self.sent_bytes += len(data)
                server.sendall(data)
        except OSError:
            pass
        close(client, server)

    def _down(self, server: socket.socket, client: socket.socket, cut: int | None) -> None:
        try:
            while data := server.recv(65536):
                if cut is not None:
                    data, cut = data[:cut], cut - len(data)
                    client.sendall(data)
                    if cut <= 0:
                        break
                else:
                    client.sendall(data)
        except OSError:
            pass
        close(client, server)


def close(*sockets: socket.socket) -> None:
    for end in sockets:
        with contextlib.suppress(OSError):  # closed by the other thread
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    endpoint = os.environ.get("SLIPWAY_TEST_S3_ENDPOINT", "")
    if not endpoint.startswith("http://"):
        pytest.skip("a proxy of the test's own can't speak for a service with TLS")
    proxy = Proxy(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    yield proxy
    proxy.close()


def test_a_read_goes_on_where_its_connection_broke(uri: str, store: S3Store, proxy: Proxy) -> None:
    store.write_bytes("large", LARGE)
    proxy.cuts = [9_000_000, 100, 2_000_000, 3_000_000]
    with open_store(uri).open_read("large") as stream:
        assert stream.read() == LARGE
    assert proxy.cuts == []
    proxy.cuts = [1_000_000, 500_000]
    assert open_store(uri).read_bytes("large") == LARGE


def test_a_connection_that_always_breaks_is_an_error_in_time(uri: str, store: S3Store, proxy: Proxy) -> None:
    store.write_bytes("a", b"x" * 1000)
    proxy.cuts = [0] * 50
    with pytest.raises(StoreError, match=f"store {uri}: can't be reached"):
        open_store(uri).read_bytes("a")


def test_an_object_replaced_while_it_is_read_is_noticed(store: S3Store) -> None:
    size_bytes = 8 * len(LARGE)
    with store.open_write("a") as stream:
        for _ in range(8):
            stream.write(LARGE)
    with store.open_read("a") as stream:
        read_bytes = len(stream.read(100))
        store.write_bytes("a", b"y" * size_bytes)
        with pytest.raises(StoreError, match="replaced by another writer"):
            while block := stream.read(1_000_000):
                read_bytes += len(block)
    assert read_bytes < size_bytes


def test_writes_survive_broken_connections(uri: str, store: S3Store, proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    proxy.cuts = [0, 30, 10**9, 0, 100, 30]  # the third carries the first request through
    through = open_store(uri)
    through.put_file("file", tmp_path / "file")
    with through.open_write("stream") as stream:
        stream.write(LARGE)
    assert store.read_bytes("file") == store.read_bytes("stream") == LARGE


def test_a_writer_whose_answer_was_lost_knows_that_it_won(uri: str, store: S3Store, proxy: Proxy) -> None:
    for lost in range(1, 4):
        proxy.cuts = [0] * lost
        assert open_store(uri).write_bytes(f"lock-{lost}", b"mine", if_absent=True)
        proxy.cuts = [0] * lost
        assert not open_store(uri).write_bytes(f"lock-{lost}", b"mine", if_absent=True)


#: Uploads a file until it has told of two parts, then says so and hangs in telling of the third.
PUT_FILE = """
import sys, threading
from pathlib import Path
from artifacts.store import open_store
told = []
def sent(size_bytes):
    told.append(size_bytes)
    if len(told) >= 2:
        print("halfway", flush=True)
        threading.Event().wait()
open_store(sys.argv[1]).put_file("large", Path(sys.argv[2]), sha256=sys.argv[3], sent=sent)
"""


@pytest.mark.parametrize("change", [False, True], ids=["same file", "another content"])
def test_an_upload_that_was_killed_is_gone_on_with(
    change: bool, uri: str, store: S3Store, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    upload = subprocess.Popen(
        [sys.executable, "-c", PUT_FILE, uri, str(path), hash_file(path)[1]],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_S3_CONCURRENCY": "2"},
    )
    assert upload.stdout is not None and upload.stdout.readline() == b"halfway\n"
    upload.send_signal(signal.SIGKILL)
    upload.communicate()
    assert keys(store) == []
    content = LARGE if not change else LARGE[:-1] + b"\0"
    path.write_bytes(content)
    sha256, before_bytes = hash_file(path)[1], proxy.sent_bytes
    open_store(uri).put_file("large", path, sha256=sha256)
    assert store.read_bytes("large") == content and store.holds("large", sha256)
    if not change:
        assert proxy.sent_bytes - before_bytes < len(LARGE) - PART_BYTES
    assert list(store.unfinished(-60)) == []


def test_what_is_there_is_not_sent_again(uri: str, store: S3Store, proxy: Proxy, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(os.urandom(100_000))
    (tmp_path / "large").write_bytes(LARGE)
    ArtifactWriter(open_store(uri), "data/key").add_folder(tmp_path)
    (tmp_path / "7").write_bytes(os.urandom(100_000))
    before_bytes = proxy.sent_bytes
    writer = ArtifactWriter(open_store(uri), "data/key")
    writer.add_folder(tmp_path)
    assert 100_000 < proxy.sent_bytes - before_bytes < 150_000
    assert store.holds("data/key/7", writer.entries["7"].sha256)


def test_one_writer_of_many_wins_while_others_delete(store: S3Store) -> None:
    """A lock taken and given back by many: never two holders."""
    holders: list[int] = []

    def take(index: int) -> int:
        taken = 0
        for _ in range(20):
            if store.write_bytes("lock", b"%d" % index, if_absent=True):
                holders.append(index)
                assert holders == [index]
                taken += 1
                holders.remove(index)
                store.delete("lock")
        return taken

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) >= 8


@pytest.mark.parametrize("action", ["read", "exists", "list", "write", "stream"])
def test_what_stands_in_the_way_is_named(
    action: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(uri: str) -> str:
        store = open_store(uri)
        with pytest.raises(StoreError) as caught:
            if action == "read":
                store.read_bytes("a")
            elif action == "exists":
                store.exists("a")
            elif action == "list":
                list(store.list(""))
            elif action == "write":
                store.write_bytes("a", b"")
            else:
                with store.open_write("a") as stream:
                    stream.write(b"x")
        return str(caught.value)

    assert "there is no such bucket" in message(f"s3://no-such-bucket-{uuid.uuid4().hex[:8]}/x")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "credentials" in message(uri)
        patch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        assert "credentials" in message(uri) and "wrong" not in message(uri)
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert "no usable credentials" in message(uri) and "AWS_ACCESS_KEY_ID" in message(uri)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        assert "can't be reached" in message(uri)
