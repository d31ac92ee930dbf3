"""Downloads against a local stand-in of each hub."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import train.model
from artifacts.contract import ModelParams, StageKind
from artifacts.events import events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import local_folder, read_marker, verify
from artifacts.segments import read_all
from tests.artifacts.remote import RemoteStore
from tests.train.stage_inputs import TWIN, put_data, stage_context
from tests.train.test_twin import TEXTS
from train.hub import HubFile, download, git_object_id, select
from train.stage import StageError, StageUserError
from train.twin import make_twin

REPOSITORY, REVISION = "team/tiny", "0123456789abcdef0123456789abcdef01234567"
EXTRA = {"README.md": b"# Tiny", "pytorch_model.bin": b"pickle", "original/params.json": b"{}"}


class Hub(ThreadingHTTPServer):
    """One repository behind the paths of the Hugging Face hub and of ModelScope."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.served = files, dict(files)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts, files = urlsplit(self.path), self.server.files
        self.server.requests.append(unquote(parts.path))
        if parts.path == f"/api/models/{REPOSITORY}/revision/{REVISION}":
            self._json(
                {"id": REPOSITORY, "sha": REVISION, "siblings": [self._sibling(name) for name in files]}
            )
        elif parts.path == f"/api/v1/models/{REPOSITORY}/repo/files":
            listed = [
                {"Path": name, "Type": "blob", "Size": len(body), "Sha256": hashlib.sha256(body).hexdigest()}
                for name, body in files.items()
            ]
            self._json({"Code": 200, "Data": {"Files": [{"Path": "original", "Type": "tree"}, *listed]}})
        elif parts.path == f"/api/v1/models/{REPOSITORY}/repo":
            self._send(self.server.served[parse_qs(parts.query)["FilePath"][0]])
        elif parts.path.startswith(f"/{REPOSITORY}/resolve/{REVISION}/"):
            name = unquote(parts.path.split("/", 5)[5])
            self._send(self.server.served[name], {"ETag": f'"{self._etag(name)}"', "X-Repo-Commit": REVISION})
        else:
            self._send(b"", {"X-Error-Code": "RepoNotFound"}, status=404)

    def _sibling(self, name: str) -> dict[str, object]:
        body = self.server.files[name]
        facts = {"rfilename": name, "size": len(body), "blobId": self._git_id(body)}
        if name.endswith(".safetensors"):
            facts["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        return facts

    def _etag(self, name: str) -> str:
        body = self.server.files[name]
        return hashlib.sha256(body).hexdigest() if name.endswith(".safetensors") else self._git_id(body)

    @staticmethod
    def _git_id(body: bytes) -> str:
        return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(params=["huggingface", "modelscope"])
def hub(request, monkeypatch):
    server = Hub(make_twin(TWIN, TEXTS) | EXTRA)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", server.url)
    server.kind = request.param
    yield server
    server.shutdown()
    server.server_close()


def params(hub, **changes) -> ModelParams:
    facts = {"source": "hub", "location": REPOSITORY, "revision": REVISION, "hub": hub.kind}
    return ModelParams(**facts | changes)


def test_a_model_is_downloaded_once_with_the_files_it_needs(hub, tmp_path):
    seen = []
    snapshot = download(params(hub), cache=tmp_path, progress=lambda *bytes_: seen.append(bytes_))
    wanted = set(hub.files) - set(EXTRA)
    assert {entry.path for entry in snapshot.files} == wanted
    assert all((snapshot.folder / name).read_bytes() == hub.files[name] for name in wanted)
    total = sum(len(hub.files[name]) for name in wanted)
    assert seen[-1] == (total, total)

    hub.served = {}
    assert download(params(hub), cache=tmp_path) == snapshot


def test_a_rehearsal_fetches_no_weights(hub, tmp_path):
    snapshot = download(params(hub), weights=False, cache=tmp_path)
    assert "config.json" in {entry.path for entry in snapshot.files}
    assert not any("safetensors" in path for path in hub.requests)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_those_listed_are_refused(hub, tmp_path, name):
    body = hub.files[name]
    hub.served[name] = body[:-1] + bytes([body[-1] ^ 1])
    with pytest.raises(StageError, match=f"{name}: its digest"):
        download(params(hub), cache=tmp_path)


def test_an_unknown_revision_and_a_model_without_safetensors_are_the_users_errors(hub, tmp_path):
    with pytest.raises(StageUserError, match=r"no such repository|404"):
        download(params(hub, location="team/other"), cache=tmp_path)
    del hub.files["model.safetensors"]
    with pytest.raises(StageUserError, match="no safetensors"):
        download(params(hub), cache=tmp_path)


def test_a_hub_out_of_reach_can_be_tried_again(hub, tmp_path, monkeypatch):
    for name in ("HF_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(StageError) as failure:
        download(params(hub), cache=tmp_path)
    assert not isinstance(failure.value, StageUserError)


def test_the_stage_uses_the_cache_in_place(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    store = LocalStore(tmp_path / "store")
    put_data(store, {"train": []})
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work", model=params(hub)))
    assert verify(store, "models/key") == []
    assert read_marker(store, "models/key").location.startswith((tmp_path / "cache").as_uri())
    assert (local_folder(store, "models/key") / "config.json").read_bytes() == hub.files["config.json"]
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_the_stage_moves_a_model_into_a_remote_store_file_by_file(hub, tmp_path):
    store, work = RemoteStore(tmp_path / "store"), tmp_path / "work"
    put_data(store, {"train": []})
    context = stage_context(store, StageKind.MODEL, work, model=params(hub))
    train.model.run(context)
    context.events.flush()
    wanted = set(hub.files) - set(EXTRA)
    manifest = read_marker(store, "models/key")
    assert manifest.location is None and {entry.path for entry in manifest.files} == wanted
    assert verify(store, "models/key") == []
    assert not any(path.stat().st_size > 1000 for path in work.rglob("*") if path.is_file())  # nothing stays
    progress = [row for row in read_all(store, events_prefix("run")) if row["kind"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == manifest.size_bytes


def test_a_move_that_was_cut_off_sends_no_weights_again(hub, tmp_path):
    store = RemoteStore(tmp_path / "store")
    put_data(store, {"train": []})
    store.write_bytes("models/key/model.safetensors", hub.files["model.safetensors"])
    train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work", model=params(hub)))
    assert verify(store, "models/key") == []
    assert not any("model.safetensors" in request.split("/")[-1] for request in hub.requests)
    assert "models/key/model.safetensors" not in store.puts()


def test_damage_on_the_way_from_the_hub_commits_nothing(hub, tmp_path):
    store = RemoteStore(tmp_path / "store")
    put_data(store, {"train": []})
    hub.served["model.safetensors"] = bytes(len(hub.files["model.safetensors"]))
    with pytest.raises(StageError, match=r"model.safetensors: its digest"):
        train.model.run(stage_context(store, StageKind.MODEL, tmp_path / "work", model=params(hub)))
    assert read_marker(store, "models/key") is None


SELECTED = ["config.json", "modeling_x.py", "kernel.cu", "tokenizer.model", "chat_template.jinja"]
WEIGHTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
LEFT_OUT = ["consolidated.safetensors", "a/model.safetensors", "README.md", "model.gguf", "onnx/config.json"]


@pytest.mark.parametrize("weights", [True, False])
def test_selection(weights):
    files = [HubFile(name, 1) for name in SELECTED + WEIGHTS + LEFT_OUT]
    assert [file.path for file in select(files, weights=weights)] == SELECTED + WEIGHTS * weights


def test_git_object_id(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_object_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_an_import_costs_nothing_until_a_hub_is_asked():
    script = "import sys, train.hub; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
