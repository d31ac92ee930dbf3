"""Uploads against a stand-in of the hub: once, whole or not at all, whatever breaks on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import StageKind
from artifacts.events import events_prefix
from artifacts.manifest import hash_file, read_marker
from artifacts.segments import read_all
from launcher.errors import ClusterError, UserError
from launcher.publishing import hub as hub_module
from launcher.publishing.listing import Remote, stale_weights
from tests.launcher.publishing import runs, stand_in
from tests.launcher.publishing.runs import REPOSITORY
from tests.launcher.publishing.stand_in import CUT, Fault, StandIn
from tests.launcher.synthetic_run import RUN_ID

ROOT = Path(__file__).resolve().parents[3]
CARD = ["README.md", "training-loss.svg"]


def test_a_model_is_published_in_one_commit_and_once(hub: StandIn, tmp_path: Path) -> None:
    store, plan = runs.make(tmp_path / "store")
    facts = runs.publish(store, plan)
    repository, there = hub.repositories[REPOSITORY], hub.contents(REPOSITORY)
    assert repository.private and len(repository.commits) == 2
    assert repository.messages[1] == f"harbour-bot: model, adapter, quantized, gguf ({RUN_ID})"
    whole = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(there) == sorted(
        [
            ".gitattributes",
            *CARD,
            *whole,
            *[f"gptq/{name}" for name in whole],
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "gguf/Modelfile",
            "gguf/harbour-bot-q4_k_m.gguf",
        ]
    )
    assert there["model.safetensors"] == runs.WEIGHTS
    assert json.loads(there["adapter/adapter_config.json"])["base_model_name_or_path"] == "team/base"
    assert facts == {"address": f"{hub.url}/{REPOSITORY}", "revision": repository.head}

    told = json.loads(store.read_bytes(f"{plan.stage(StageKind.PUBLISH).output}/published.json"))
    assert told["private"] is True and told["revision"] == repository.head
    assert {file["path"] for file in told["files"]} == set(there) - {".gitattributes"}
    sent = hub.received_bytes
    assert runs.publish(store, plan) == facts  # nothing is sent, nothing is committed
    assert hub.received_bytes == sent and len(repository.commits) == 2


@pytest.mark.products
def test_what_is_there_is_not_sent_again_and_weights_of_another_model_go(
    hub: StandIn, tmp_path: Path
) -> None:
    store, plan = runs.make(tmp_path / "store", products=["model"])
    runs.publish(store, plan)
    tree = hub.repositories[REPOSITORY].commits[-1]
    tree |= {"notes.md": ("file", b"my own"), "model-00001-of-00002.safetensors": ("file", b"older")}
    tree |= {"adapter_config.json": ("file", b"{}"), "onnx/model.bin": ("file", b"other folder")}
    sent = hub.received_bytes
    runs.put(
        store,
        plan.stage(StageKind.MERGE),
        {"config.json": b'{"changed": 1}', "model.safetensors": runs.WEIGHTS},
    )
    runs.publish(store, plan)
    there = hub.contents(REPOSITORY)
    assert there["config.json"] == b'{"changed": 1}' and there["notes.md"] == b"my own"
    assert "onnx/model.bin" in there
    assert not {"model-00001-of-00002.safetensors", "adapter_config.json"} & set(there)
    assert hub.received_bytes == sent


def test_only_weights_in_folders_that_are_written_are_stale() -> None:
    remote = Remote(None, "")
    names = ["a.safetensors", "x/a.safetensors", "x/adapter_config.json", "config.json", "x/notes.txt"]
    there = dict.fromkeys(names, remote)
    assert stale_weights(there, ["x/b.safetensors", "README.md"]) == [
        "x/a.safetensors",
        "x/adapter_config.json",
    ]
    assert stale_weights(there, ["a.safetensors"]) == []
    assert stale_weights(there, ["README.md", "config.json"]) == []


FAULTS = {
    "too many requests": [Fault("POST", "/preupload/", 429, times=2)],
    "a server error in the middle of a file": [Fault("PUT", "/lfs/part/", 500, times=2)],
    "a connection that breaks": [Fault("PUT", "/lfs/", CUT, times=2)],
    "a batch that fails": [Fault("POST", "/objects/batch", 503, times=3)],
    "a commit that fails": [Fault("POST", "/commit/", 500)],
    "a commit whose answer is lost": [Fault("ANSWER", "/commit/", CUT)],
    "a commit that is said to have failed": [Fault("ANSWER", "/commit/", 502)],
    "a listing that fails": [Fault("GET", "/tree/", 500, times=2)],
    "a repository that somebody else changes": [Fault("POST", "/commit/", 412)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.products
def test_what_passes_is_waited_out(hub: StandIn, tmp_path: Path, faults: list[Fault]) -> None:
    hub.faults = [dataclasses.replace(fault) for fault in faults]
    store, plan = runs.make(tmp_path / "store", products=["model", "gguf"])
    facts = runs.publish(store, plan)
    assert all(fault.times == 0 for fault in hub.faults)
    assert len(hub.repositories[REPOSITORY].commits) == 2  # also where the first answer was lost
    assert facts["revision"] == hub.repositories[REPOSITORY].head
    assert hub.contents(REPOSITORY)["model.safetensors"] == runs.WEIGHTS


@pytest.mark.products
def test_after_a_failure_that_stays_nothing_shows_and_nothing_is_sent_again(
    hub: StandIn, tmp_path: Path
) -> None:
    store, plan = runs.make(tmp_path / "store", products=["model", "gguf"])
    hub.faults = [Fault("POST", "/commit/", 500, times=100)]
    with pytest.raises(ClusterError, match=r"answers 500 .*submit again: what was sent is not sent again"):
        runs.publish(store, plan)
    assert len(hub.repositories[REPOSITORY].commits) == 1
    assert read_marker(store, plan.stage(StageKind.PUBLISH).output) is None
    hub.faults, sent = [], hub.received_bytes
    runs.publish(store, plan)
    assert hub.received_bytes == sent and len(hub.repositories[REPOSITORY].commits) == 2


@pytest.mark.products
def test_a_publication_that_is_killed_goes_on(hub: StandIn, tmp_path: Path) -> None:
    """SIGKILL while the second large file is on its way: the first is not sent again, and nobody has seen
    either before the commit."""
    _, plan = runs.make(tmp_path / "store", products=["model", "gguf"])
    hub.chunk_bytes = 1 << 30
    plan_file = tmp_path / "plan.json"
    plan_file.write_bytes(plan.to_json())
    command = [sys.executable, "-P", "-m", "launcher.publishing", "publish", "--plan", str(plan_file)]
    command += ["--run", RUN_ID, "--work", str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf")}
    hub.hold_uploads.clear()
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while (
        sum(request.startswith("PUT /lfs/") for request in hub.requests) < 2 and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    gguf_file = tmp_path / "store" / plan.stage(StageKind.GGUF).output / "harbour-bot-q4_k_m.gguf"
    gguf = hash_file(gguf_file)[1]
    hub.objects[gguf] = runs.WEIGHTS[:700_000]  # this one has arrived
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.hold_uploads.set()
    assert len(hub.repositories[REPOSITORY].commits) == 1
    hub.requests.clear()
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert not any(gguf in request for request in hub.requests)
    assert hub.contents(REPOSITORY)["model.safetensors"] == runs.WEIGHTS
    assert len(hub.repositories[REPOSITORY].commits) == 2


def test_a_public_repository_is_not_written_where_a_private_one_is_asked_for(
    hub: StandIn, tmp_path: Path
) -> None:
    hub.make(REPOSITORY, private=False)
    store, plan = runs.make(tmp_path / "store", products=["adapter"])
    with pytest.raises(UserError, match=r"is public, and publish.private asks for a private one"):
        runs.publish(store, plan)
    assert not hub.repositories[REPOSITORY].commits[1:] and not hub.received_bytes
    assert not hub.repositories[REPOSITORY].private


@pytest.mark.products
def test_a_private_repository_stays_private(hub: StandIn, tmp_path: Path) -> None:
    hub.make(REPOSITORY, private=True)
    store, plan = runs.make(tmp_path / "store", products=["adapter"], private=False)
    runs.publish(store, plan)
    assert hub.repositories[REPOSITORY].private
    notes = [row["text"] for row in read_all(store, events_prefix(RUN_ID)) if row["kind"] == "note"]
    assert any("is private and stays so" in note for note in notes)


@pytest.mark.products
@pytest.mark.parametrize(
    ("token", "to", "words"),
    [
        ("hf_unknownTokenOfNobody00001", REPOSITORY, "doesn't accept the token"),
        (stand_in.READER, REPOSITORY, r"the token may not do that \(You don't have the rights"),
        (stand_in.WRITER, "strangers/bot", "the token may not do that"),
        ("", REPOSITORY, "there is no token for the hub; set HF_TOKEN"),
    ],
)
def test_refusals_are_told_in_users_words(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, to: str, words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    store, plan = runs.make(tmp_path / "store", f"hub://{to}", products=["adapter"])
    with pytest.raises(UserError, match=words) as refusal:
        runs.publish(store, plan)
    assert not token or token not in str(refusal.value)
    assert (
        refusal.value.__context__ is None or refusal.value.__suppress_context__
    )  # no request in a traceback


@pytest.mark.products
def test_a_repository_that_ignores_some_of_it_is_not_written(hub: StandIn, tmp_path: Path) -> None:
    hub.make(REPOSITORY, private=True, __gitignore=b"adapter_model.safetensors")
    store, plan = runs.make(tmp_path / "store", products=["adapter"])
    with pytest.raises(UserError, match=r"its .gitignore leaves out adapter_model.safetensors"):
        runs.publish(store, plan)
    assert len(hub.repositories[REPOSITORY].commits) == 1


@pytest.mark.products
def test_the_token_is_in_nothing_that_is_written(hub: StandIn, tmp_path: Path) -> None:
    """As a process: published, refused, and broken off with its storage's signed addresses in the error."""
    home = tmp_path / "home"
    home.mkdir()
    for name, faults in (
        ("good", []),
        ("refused", [Fault("POST", "/api/repos/create", 403)]),
        ("broken", [Fault("PUT", "/lfs/", 400, times=99)]),
    ):
        hub.faults = faults
        hub.repositories.clear()
        hub.objects.clear()
        _, plan = runs.make(tmp_path / name, products=["model", "gguf"])
        plan_file = tmp_path / f"{name}.json"
        plan_file.write_bytes(plan.to_json())
        command = [sys.executable, "-P", "-m", "launcher.publishing", "publish", "--plan", str(plan_file)]
        command += ["--run", RUN_ID, "--work", str(tmp_path / "work")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "HF_HOME": str(home / "hf")}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert (done.returncode == 0) == (name == "good"), done.stderr.decode()
        (tmp_path / f"{name}.out").write_bytes(done.stdout + done.stderr)
    token = stand_in.WRITER.encode()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert token not in path.read_bytes(), path
            assert b"signedBySecret0123" not in path.read_bytes(), path
    for name in hub.repositories:
        assert all(token not in content for content in hub.contents(name).values())
    assert all(stand_in.WRITER not in request for request in hub.requests)


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("", "https://huggingface.co"),
        ("https://user:secret@hub.example.com/api/", "https://hub.example.com/api"),
        ("mirror.example.com", "https://mirror.example.com"),
    ],
)
def test_the_hubs_address_holds_no_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", variable)
    assert hub_module.endpoint() == address


@pytest.mark.parametrize(
    ("address", "disabled"), [("https://huggingface.co", False), ("http://mirror", True)]
)
def test_xet_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch, address: str, disabled: bool) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub_module._use_xet_where_it_is(address)
    from huggingface_hub import constants

    known: Any = constants.HF_HUB_DISABLE_XET
    assert known is disabled
