from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from launcher.errors import ClusterError, UserError
from launcher.spec.load import load_job
from launcher.spec.pin import Change, pin_job

COMMIT, TAGGED, ELSEWHERE = "a1" * 20, "0" * 40, "c3" * 20  # a commit of digits alone needs quotes in YAML

ANSWERS: dict[str, tuple[int, dict[str, str], object]] = {
    "/api/models/Qwen/Qwen3-8B": (200, {}, {"id": "Qwen/Qwen3-8B", "sha": COMMIT}),
    "/api/models/Qwen/Qwen3-8B/revision/v1": (200, {}, {"id": "Qwen/Qwen3-8B", "sha": TAGGED}),
    "/api/models/Qwen/Qwen3-8B/revision/v9": (404, {"X-Error-Code": "RevisionNotFound"}, {}),
    "/api/models/no/model": (401, {"X-Error-Code": "RepoNotFound"}, {}),
    "/api/models/gated/model": (403, {"X-Error-Code": "GatedRepo"}, {}),
    "/api/models/broken/model": (500, {}, {}),
    "/api/models/odd/model": (200, {}, {"id": "odd/model", "sha": "main"}),
    "/api/v1/models/Qwen/Qwen3-8B/commits": (200, {}, {"Data": {"Commit": [{"Id": ELSEWHERE}]}}),
    "/api/v1/models/odd/model/commits": (200, {}, {"Data": None}),
}


class _Hub(BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub's and ModelScope's APIs do."""

    def do_GET(self) -> None:
        status, headers, body = ANSWERS.get(urlsplit(self.path).path, (404, {}, {}))
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hubs(hub_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", hub_url)


def job(path: Path, model: str) -> Path:
    path.write_text(f"name: bot  # of support\nmodel:{model}\n\ndata: {{train: a.jsonl}}\n", newline="")
    return path


@pytest.mark.parametrize(
    ("model", "pinned"),
    [
        ("\n  hub: Qwen/Qwen3-8B  # the base", f"\n  hub: Qwen/Qwen3-8B  # the base\n  revision: {COMMIT}"),
        (
            "\n    hub: 'Qwen/Qwen3-8B'\n    twin:",
            f"\n    hub: 'Qwen/Qwen3-8B'\n    revision: {COMMIT}\n    twin:",
        ),
        (
            "\n  revision:   # later\n  hub: Qwen/Qwen3-8B",
            f"\n  revision: {COMMIT}   # later\n  hub: Qwen/Qwen3-8B",
        ),
        ("\n  hub: Qwen/Qwen3-8B\n  revision: v1", f'\n  hub: Qwen/Qwen3-8B\n  revision: "{TAGGED}"'),
        (" {hub: Qwen/Qwen3-8B}", f" {{hub: Qwen/Qwen3-8B, revision: {COMMIT}}}"),
        (
            " {hub: Qwen/Qwen3-8B, provider: modelscope}",
            f" {{hub: Qwen/Qwen3-8B, revision: {ELSEWHERE}, provider: modelscope}}",
        ),
        ("\r\n  hub: Qwen/Qwen3-8B\r", f"\r\n  hub: Qwen/Qwen3-8B\r\n  revision: {COMMIT}\r"),
    ],
)
def test_hub_revision_is_written_and_the_rest_kept(model: str, pinned: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", model)
    expected = path.read_bytes().decode().replace(f"model:{model}", f"model:{pinned}")
    path.chmod(0o640)
    [change] = pin_job(path)
    assert path.read_bytes().decode() == expected
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    assert change.field == "model.revision"
    assert load_job(path).value.model.revision == change.after
    assert pin_job(path) == []


@pytest.mark.parametrize(
    ("section", "pinned"),
    [
        (
            "\nmerge:\n  original:\n    hub: Qwen/Qwen3-8B\n  max_drift: 0.1",
            f"\nmerge:\n  original:\n    hub: Qwen/Qwen3-8B\n    revision: {COMMIT}\n  max_drift: 0.1",
        ),
        (
            "\nmerge: {original: {hub: Qwen/Qwen3-8B, revision: v1}}",
            f'\nmerge: {{original: {{hub: Qwen/Qwen3-8B, revision: "{TAGGED}"}}}}',
        ),
    ],
)
def test_the_original_of_a_quantized_base_is_pinned_too(section: str, pinned: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", f" {{folder: x}}{section}")
    expected = path.read_text().replace(section, pinned)
    [change] = pin_job(path)
    assert change.field == "merge.original.revision"
    assert path.read_text() == expected
    assert pin_job(path) == []


def test_what_changed_is_told(tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", " {hub: Qwen/Qwen3-8B, revision: v1}")
    assert pin_job(path) == [Change("model.revision", "v1", TAGGED)]
    assert str(Change("model.revision", None, COMMIT)) == f"model.revision: (left out) -> {COMMIT}"


@pytest.mark.parametrize("model", [" {twin: {}}", " {folder: ../x}", f" {{hub: a/b, revision: {COMMIT}}}"])
def test_nothing_to_pin(model: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", model)
    before = path.stat().st_mtime_ns
    assert pin_job(path) == []
    assert path.stat().st_mtime_ns == before


def test_byte_order_mark_and_symlink_stay(tmp_path: Path) -> None:
    target = tmp_path / "real.yaml"
    target.write_bytes(b"\xef\xbb\xbfmodel:\n  hub: Qwen/Qwen3-8B")
    (tmp_path / "job.yaml").symlink_to(target)
    pin_job(tmp_path / "job.yaml")
    assert (tmp_path / "job.yaml").is_symlink()
    assert target.read_bytes() == b"\xef\xbb\xbfmodel:\n  hub: Qwen/Qwen3-8B\n  revision: " + COMMIT.encode()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{hub: no/model}", "has no such model; check the name, or set HF_TOKEN"),
        ("{hub: gated/model}", "the repository is gated; ask for access"),
        ("{hub: Qwen/Qwen3-8B, revision: v9}", "has no branch, tag or commit v9"),
        ("{hub: no/model, provider: modelscope}", "has no such model or revision"),
        ("{hub: Qwen/Qwen3-8B, provider: modelhub}", "is not known; write huggingface or modelscope"),
        ("{hub: 'https://huggingface.co/x/y'}", "is no repository id; write it as"),
        ("{hub: Qwen/Qwen3-8B, revision: 7}", "is not text; put it in quotes"),
        ("{store: nowhere}", "there is no complete artifact"),
        ("{store: 'gs://bucket/models/x'}", "no store for 'gs://' here"),
    ],
)
def test_the_users_mistakes(model: str, message: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", f" {model}")
    before = path.read_bytes()
    with pytest.raises(UserError) as raised:
        pin_job(path)
    assert str(raised.value).startswith(f"{path}:2:9 model.")
    assert message in str(raised.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "model", ["{hub: broken/model}", "{hub: odd/model}", "{hub: odd/model, provider: modelscope}"]
)
def test_a_hub_in_trouble(model: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", f" {model}")
    before = path.read_bytes()
    with pytest.raises(ClusterError, match=r"can't be asked: .*check the network"):
        pin_job(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("provider", ["huggingface", "modelscope"])
def test_no_network(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:1")
    path = job(tmp_path / "job.yaml", f" {{hub: a/b, provider: {provider}}}")
    with pytest.raises(ClusterError, match=r"http://127.0.0.1:1 can't be asked"):
        pin_job(path)


def test_store_digest(tmp_path: Path) -> None:
    writer = ArtifactWriter(LocalStore(tmp_path / "store"), "models/k1")
    writer.write_bytes("config.json", b"{}")
    digest = writer.commit().content_digest
    path = job(tmp_path / "job.yaml", "\n  store: store/models/k1")
    assert pin_job(path) == [Change("model.sha256", None, digest)]
    assert load_job(path).value.model.sha256 == digest
    assert pin_job(path) == []
    writer.write_bytes("config.json", b"{ }")
    changed = writer.commit().content_digest
    assert pin_job(path) == [Change("model.sha256", digest, changed)]


@pytest.mark.parametrize("model", ["\n  ? hub\n  : Qwen/Qwen3-8B", "\n  hub: |-\n    Qwen/Qwen3-8B"])
def test_odd_layouts_are_written_right_or_refused(model: str, tmp_path: Path) -> None:
    path = job(tmp_path / "job.yaml", model)
    before = path.read_bytes()
    try:
        pin_job(path)
    except UserError as error:
        assert f"write `revision: {COMMIT}` under model" in str(error)
        assert path.read_bytes() == before
    else:
        assert load_job(path).value.model.revision == COMMIT


FILES = {"s3://bucket/data/a.jsonl": "1" * 64, "s3://bucket/data/b.jsonl": "2" * 64}


@pytest.mark.parametrize(
    ("data", "pinned"),
    [
        (
            "\n  train: s3://bucket/data/a.jsonl  # tickets\n  format: auto",
            '\n  train: s3://bucket/data/a.jsonl  # tickets\n  pins: {"s3://bucket/data/a.jsonl": "A"}\n'
            "  format: auto",
        ),
        (
            "\n  train:\n    - local.jsonl\n    - s3://bucket/data/b.jsonl\n  eval: s3://bucket/data/a.jsonl",
            "\n  train:\n    - local.jsonl\n    - s3://bucket/data/b.jsonl\n"
            '  pins: {"s3://bucket/data/b.jsonl": "B", "s3://bucket/data/a.jsonl": "A"}\n'
            "  eval: s3://bucket/data/a.jsonl",
        ),
        (
            "\n  pins:\n    gone: x  # before\n  train: [s3://bucket/data/a.jsonl]",
            '\n  pins:\n    {"s3://bucket/data/a.jsonl": "A"}  # before\n  train: [s3://bucket/data/a.jsonl]',
        ),
        (
            "\n  train:\n    - {path: s3://bucket/data/a.jsonl, weight: 2}\n    - path: s3://bucket/data/?.jsonl",
            "\n  train:\n    - {path: s3://bucket/data/a.jsonl, weight: 2}\n    - path: s3://bucket/data/?.jsonl"
            '\n  pins: {"s3://bucket/data/a.jsonl": "A", "s3://bucket/data/b.jsonl": "B"}',
        ),
        (
            " {train: 's3://bucket/data/a.jsonl', pins: {gone: x}}",
            ' {train: \'s3://bucket/data/a.jsonl\', pins: {"s3://bucket/data/a.jsonl": "A"}}',
        ),
    ],
)
def test_digests_of_remote_data_are_written(
    data: str, pinned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.remote_data.digest", FILES.__getitem__)
    monkeypatch.setattr("launcher.remote_data.listing", lambda pattern: list(FILES))
    path = tmp_path / "job.yaml"
    path.write_text(f"name: bot\nmodel: {{twin: {{}}}}\ndata:{data}\n# the end\n")
    expected = pinned.replace('"A"', f'"{"1" * 64}"').replace('"B"', f'"{"2" * 64}"')
    changes = pin_job(path)
    assert path.read_text() == f"name: bot\nmodel: {{twin: {{}}}}\ndata:{expected}\n# the end\n"
    assert {change.after for change in changes} - {"(removed)"} <= set(FILES.values())
    assert set(load_job(path).value.data.pins) <= set(FILES)
    monkeypatch.setattr("launcher.remote_data.digest", None)  # a pin stays, unread
    monkeypatch.setattr("launcher.remote_data.listing", None)
    assert pin_job(path) == []
