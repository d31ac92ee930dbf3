"""Data files that lie elsewhere: in a job, in its plan, and through the data stage."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import EXIT_DONE, EXIT_USER_ERROR, Plan, StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import read_marker, verify
from launcher import remote_data
from launcher.errors import ClusterError, UserError
from launcher.planning.text import render
from launcher.stages import data_run
from launcher.stages.data_run.__main__ import main
from launcher.staging import needs_laptop
from tests.artifacts.remote import RemoteStore
from tests.launcher.plans import make_plan, write_job

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = "s3://bucket/data/train.jsonl"
HUB = f"hub://datasets/team/tickets@{COMMIT}/data/train.jsonl"
LINES = "".join(json.dumps({"instruction": f"{i}?", "output": str(i)}) + "\n" for i in range(30)).encode()
PIN = hashlib.sha256(LINES).hexdigest()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """What stands behind s3://bucket/data."""
    store = LocalStore(tmp_path / "bucket")
    store.write_bytes("train.jsonl", LINES)
    monkeypatch.setattr(remote_data, "open_store", {"s3://bucket/data": store}.__getitem__)
    return store


def plan_of(folder: Path, **data: Any) -> Plan:
    write_job(folder, model={"twin": {}}, data={"train": ADDRESS, "pins": {ADDRESS: PIN}, **data})
    return make_plan(folder)


def problem(folder: Path, **data: Any) -> str:
    with pytest.raises(UserError) as refused:
        plan_of(folder, **data)
    (found,) = refused.value.problems
    return str(found)


def test_an_unpinned_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    told = problem(tmp_path, pins={})
    assert "data.train: s3://bucket/data/train.jsonl: it is not pinned" in told
    assert told.endswith(f"slipway pin {tmp_path}/job.yaml")


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/a.jsonl",
        "https://example.com/a.jsonl",
        "s3://bucket",
        "s3://bucket/folder/",
        "hub://datasets/team/tickets/train.jsonl",
        "hub://datasets/team/tickets@main/train.jsonl",
        f"hub://models/team/tickets@{COMMIT}/train.jsonl",
    ],
)
def test_what_is_no_address_of_a_file_is_refused(tmp_path: Path, address: str) -> None:
    assert "no address of a data file; use s3://bucket/key, hub://datasets/" in problem(
        tmp_path, train=address
    )


def test_the_plan_needs_no_network_and_names_the_file(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    (file,) = plan.stage(StageKind.DATA).params.splits["train"]
    assert (file.path, file.sha256, file.format, file.is_remote) == (ADDRESS, PIN, "auto", True)
    assert Plan.from_json(plan.to_json()) == plan
    assert ADDRESS in render(plan, [])


def test_another_pin_is_other_data(tmp_path: Path) -> None:
    key = plan_of(tmp_path).stage(StageKind.DATA).key
    assert plan_of(tmp_path, pins={ADDRESS: "0" * 64}).stage(StageKind.DATA).key != key


def test_remote_data_never_needs_the_laptop(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "store")
    assert needs_laptop(plan_of(tmp_path), store) == []
    mixed = plan_of(tmp_path, eval="dev.jsonl")
    assert [stage.kind for stage in needs_laptop(mixed, store)] == ["data"]


def test_the_stage_fetches_and_checks_it(tmp_path: Path, bucket: LocalStore) -> None:
    store = LocalStore(tmp_path / "store")
    stage = plan_of(tmp_path).stage(StageKind.DATA)
    report = data_run.run(stage, store, Events(store, "run", "data"))
    assert verify(store, stage.output) == []
    assert report.splits["train"].records == 30
    (file,) = report.splits["train"].files
    assert file.path == ADDRESS and "format alpaca (detected)" in file.said


def test_other_content_than_the_pinned_is_refused(tmp_path: Path, bucket: LocalStore) -> None:
    bucket.write_bytes("train.jsonl", LINES[:-2] + b"\n")
    store = LocalStore(tmp_path / "store")
    stage = plan_of(tmp_path).stage(StageKind.DATA)
    with pytest.raises(UserError, match=r"not the pinned one; `slipway pin JOB`"):
        data_run.run(stage, store, Events(store, "run", "data"))
    assert read_marker(store, stage.output) is None


def test_a_bad_record_is_told_by_the_files_address(tmp_path: Path, bucket: LocalStore) -> None:
    lines = LINES + b'{"instruction": 1}\n'
    bucket.write_bytes("train.jsonl", lines)
    stage = plan_of(tmp_path, pins={ADDRESS: hashlib.sha256(lines).hexdigest()}).stage(StageKind.DATA)
    store = LocalStore(tmp_path / "store")
    with pytest.raises(UserError, match=r"^s3://bucket/data/train.jsonl: record 31 "):
        data_run.run(stage, store, Events(store, "run", "data"))


def test_as_a_process_of_a_pod(tmp_path: Path, bucket: LocalStore, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    plan = plan_of(tmp_path)
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    argv = ["data", "--plan", f"{tmp_path}/plan.json", "--run", "r", "--work", f"{tmp_path}/work"]
    assert main(argv) == EXIT_DONE
    assert verify(LocalStore(tmp_path / "store"), plan.stage(StageKind.DATA).output) == []
    assert list((tmp_path / "work").iterdir()) == []  # nothing stays in scratch
    bucket.delete("train.jsonl")
    assert main(argv) == EXIT_DONE  # complete: nothing is read
    LocalStore(tmp_path / "store").delete(f"{plan.stage(StageKind.DATA).output}/COMPLETE.json")
    assert main(argv) == EXIT_USER_ERROR
    assert "s3://bucket/data/train.jsonl: there is no such file" in capsys.readouterr().err


def test_the_digest_of_an_object_is_that_of_its_bytes(bucket: LocalStore) -> None:
    assert remote_data.digest(ADDRESS) == PIN
    with pytest.raises(UserError, match="there is no such file"):
        remote_data.digest("s3://bucket/data/absent.jsonl")


def test_a_pattern_is_listed_where_it_lies(bucket: LocalStore) -> None:
    bucket.write_bytes("more.jsonl", b"x")
    bucket.write_bytes("deep/train.jsonl", b"x")
    pattern = ADDRESS.replace("train", "*")
    assert remote_data.listing(pattern) == [ADDRESS.replace("train", "more"), ADDRESS]
    with pytest.raises(UserError, match="there is no such file"):
        remote_data.listing(pattern.replace("jsonl", "csv"))


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("s3://b/x/*.jsonl", ["s3://b/x/a.jsonl"]),
        ("s3://b/*/a.jsonl", ["s3://b/x/a.jsonl"]),
        ("s3://b/x/?.*", ["s3://b/x/a.jsonl", "s3://b/x/b.csv"]),
        ("s3://b/x/y/*", ["s3://b/x/y/a.jsonl"]),
        ("s3://c/*/*", []),
    ],
)
def test_a_wildcard_does_not_reach_over_a_slash(pattern: str, fits: list[str]) -> None:
    addresses = ["s3://b/x/y/a.jsonl", "s3://b/x/b.csv", "s3://b/x/a.jsonl"]
    assert remote_data.matching(pattern, addresses) == fits


# The hub ----------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """One data set with a small file and one that the hub keeps in LFS."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith(f"/api/datasets/team/tickets/tree/{COMMIT}"):
            names = ("README.md", "data/train.jsonl", "data/large.jsonl", "data/old/train.jsonl")
            found = [{"type": "file", "path": name, "size": 1, "oid": "1" * 40} for name in names]
            self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith(f"/api/datasets/team/tickets/revision/{COMMIT}"):
            names = ("README.md", "data/train.jsonl", "data/large.jsonl", "data/old/train.jsonl")
            info = {"id": "team/tickets", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith(f"/datasets/team/tickets/resolve/{COMMIT}/data/train.jsonl"):
            self._send(200, LINES, {"ETag": '"abc"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        found = []
        if "train.jsonl" in body:
            found.append({"type": "file", "path": "data/train.jsonl", "size": len(LINES), "oid": "1" * 40})
        if "large.jsonl" in body:
            lfs = {"oid": "e" * 64, "size": 9, "pointerSize": 130}
            found.append({"type": "file", "path": "data/large.jsonl", "size": 9, "oid": "2" * 40, "lfs": lfs})
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def test_a_file_of_a_data_set_is_fetched(hub: None, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    stage = plan_of(tmp_path, train=HUB, pins={HUB: PIN}).stage(StageKind.DATA)
    assert data_run.run(stage, store, Events(store, "run", "data")).splits["train"].records == 30


def test_its_digest_is_read_or_taken_from_the_hubs_list(hub: None) -> None:
    assert remote_data.digest(HUB) == PIN
    assert remote_data.digest(HUB.replace("train.jsonl", "large.jsonl")) == "e" * 64
    with pytest.raises(UserError, match="no such file"):
        remote_data.digest(HUB.replace("train.jsonl", "absent.jsonl"))


def test_a_pattern_of_the_hub_is_listed(hub: None) -> None:
    pattern = HUB.replace("train", "*")
    assert remote_data.listing(pattern) == [HUB.replace("train", "large"), HUB]


def test_a_hub_out_of_reach_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ClusterError, match="HF_ENDPOINT"):
        remote_data.fetch(HUB, tmp_path)
