"""`launcher.backends`: locks that outlive the pilot, the stage host's pipe, light stages."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.contract import ModelParams, Plan
from artifacts.manifest import ArtifactWriter, FileEntry, Manifest, read_marker, write_marker
from launcher.backends import local
from launcher.backends.locks import FileLock, is_held
from launcher.backends.processes import ForkedProcess, HostedProcess, StageHost
from launcher.stages.done import is_done
from launcher.status import Observation
from tests.launcher.driving import FAKE_HOST, Yard, make_plan, wait_for, yard

__all__ = ["yard"]


# Locks --------------------------------------------------------------------------------------------------


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "locks/a.lock"
    assert not is_held(path)
    first, second = FileLock(path), FileLock(path)
    assert first.acquire() and first.acquire()
    assert is_held(path) and not second.acquire()
    first.release()
    assert second.acquire()
    second.close()
    assert not is_held(path)


def test_looking_at_a_lock_does_not_keep_others_from_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    FileLock(path).close()
    looker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path\nfrom launcher.backends.locks import is_held\n"
            f"print(flush=True)\nwhile True: is_held(Path({str(path)!r}))",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert looker.stdout is not None and looker.stdout.readline()
        for _ in range(200):
            lock = FileLock(path)
            assert lock.acquire()
            lock.close()
    finally:
        looker.kill()
        looker.wait()


def test_a_lock_is_held_until_the_last_process_that_inherited_it_ends(tmp_path: Path) -> None:
    """Also one that was opened before the lock was taken, as the stage host's are."""
    lock = FileLock(tmp_path / "a.lock")
    child = subprocess.Popen(["sleep", "30"], pass_fds=[lock.descriptor])
    assert lock.acquire()
    lock.close()
    assert is_held(lock.path)
    child.kill()
    child.wait()
    assert not is_held(lock.path)


# Processes ----------------------------------------------------------------------------------------------


def test_a_light_stage_dies_with_its_pilot(tmp_path: Path) -> None:
    """A pilot that is killed leaves no process behind that writes on."""
    reader, writer = os.pipe()

    def drive() -> None:
        stage = ForkedProcess(lambda: time.sleep(60) or 0, tmp_path / "log")
        os.write(writer, str(stage.pid).encode())
        time.sleep(60)

    pilot = _fork(drive)
    pid = int(os.read(reader, 100))
    time.sleep(0.1)
    os.kill(pilot, signal.SIGKILL)
    os.waitpid(pilot, 0)
    wait_for(lambda: not _runs(pid))


def test_a_forked_stage_writes_to_its_log_and_has_an_exit_code(tmp_path: Path) -> None:
    def stage() -> int:
        print("out")
        print("err", file=sys.stderr)
        raise ValueError("a stage's own mistake")

    process = ForkedProcess(stage, tmp_path / "log")
    wait_for(lambda: process.poll() is not None)
    assert process.poll() == 1
    text = (tmp_path / "log").read_text()
    assert text.startswith("out") and "err" in text and "ValueError: a stage's own mistake" in text


CHATTY_HOST = """
import json, sys
print("[2026-11-21 10:00:00] [INFO] a library that prints on import", flush=True)
print(json.dumps({"ready": True}), flush=True)
request = json.loads(sys.stdin.readline())
print("42\\n" + json.dumps({"id": request["id"], "pid": 7}), flush=True)
print(json.dumps({"id": request["id"], "exit": -9}), flush=True)
sys.stdin.read()
"""


def test_what_libraries_print_is_not_taken_for_messages(tmp_path: Path) -> None:
    host = StageHost([sys.executable, "-c", CHATTY_HOST], tmp_path / "host.log", [])
    process = HostedProcess(host, ["train"], tmp_path / "log")
    wait_for(lambda: process.poll() is not None)
    assert host.ready and process.pid == 7 and process.poll() == -9
    host.close()


def test_stages_are_lost_with_their_host(tmp_path: Path) -> None:
    host = StageHost(
        [sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(3)"], tmp_path / "log", []
    )
    process = HostedProcess(host, ["train"], tmp_path / "log")
    wait_for(lambda: process.poll() is not None)
    assert process.lost_with_host and process.poll() == -signal.SIGKILL and host.exit_code == 3
    host.request(["merge"], tmp_path / "log")  # a pipe without a reader is no error here
    host.close()


# The backend --------------------------------------------------------------------------------------------


def observe_end(backend: local.LocalBackend, plan: Plan, kind: str) -> Observation:
    wait_for(lambda: backend.observe(plan.stage(kind)).phase not in ("running", "elsewhere"), 20)
    return backend.observe(plan.stage(kind))


def test_starting_twice_starts_once(yard: Yard) -> None:
    plan = make_plan(yard.store)
    with yard.backend(plan) as backend, yard.backend(plan) as other:
        assert backend.observe(plan.stage("model")).phase == "absent"
        backend.start(plan.stage("model"))
        backend.start(plan.stage("model"))
        assert other.observe(plan.stage("model")).phase == "elsewhere"
        other.start(plan.stage("model"))
        assert other.observe(plan.stage("model")).phase == "elsewhere"
        end = observe_end(backend, plan, "model")
        assert (end.exit_code, end.committed) == (0, True)
        assert other.observe(plan.stage("model")) == Observation(phase="absent", committed=True)
    assert yard.ledger() == ["model"]


def test_the_host_is_started_with_the_first_stage(yard: Yard) -> None:
    plan = make_plan(yard.store)
    with yard.backend(plan) as backend:
        backend.start(plan.stage("data"))
        assert (yard.work / "runs" / plan.run_id / "logs/host.log").exists()
    light = make_plan(yard.store, kinds="data", key="b")
    with yard.backend(light) as backend:
        backend.start(light.stage("data"))
        assert observe_end(backend, light, "data").committed
        assert not (yard.work / "runs" / light.run_id / "logs/host.log").exists()


def test_an_end_comes_with_its_evidence(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.behave(prepare=["print:the last line", "fail:no tokens|look at the data"])
    kills = iter([5, 6, 6, 6, 6, 6, 6])
    plan = make_plan(yard.store)
    with yard.backend(plan) as backend:
        monkeypatch.setattr(local, "oom_kills", lambda: next(kills))
        backend.start(plan.stage("prepare"))
        end = observe_end(backend, plan, "prepare")
        assert (end.phase, end.exit_code, end.committed, end.cause) == ("ended", 1, False, "")
        assert end.output.splitlines()[-1] == "the last line" and end.oom_kills == 1
        backend.start(plan.stage("prepare"))
        end = observe_end(backend, plan, "prepare")
        assert (end.cause, end.advice) == ("no tokens", "look at the data")
        assert end.evidence.endswith("prepare-002.log") and end.oom_kills == 0
        assert list(backend.logs(plan.stage("prepare"))) == ["prepare: attempt 2"]


def test_stop_gives_grace_then_terminates_then_kills(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "KILL_AFTER_S", 0.3)
    plan = make_plan(yard.store, kinds="train")
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    package = yard.folder / "train"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(script)
    monkeypatch.setattr("launcher.backends.processes.PROJECT_ROOT", yard.folder)
    monkeypatch.setattr("launcher.backends.processes.STAGE_COMMAND", (sys.executable, "-P", "-m", "train"))
    with yard.backend(plan, host_command=("false",)) as backend:
        stage = plan.stage("train")
        backend.stop(stage, 0.0)  # not running: left alone
        backend.start(stage)
        while backend.observe(stage).phase == "running":
            time.sleep(0.01)
        backend.start(stage)  # directly, since the host can't be started
        log = backend.log_files(stage)[-1]
        wait_for(lambda: "deaf" in log.read_text())
        began = time.monotonic()
        backend.stop(stage, 0.2)
        assert observe_end(backend, plan, "train").exit_code == -signal.SIGKILL
        assert time.monotonic() - began > 0.45


def test_following_a_log_ends_with_the_stage(yard: Yard) -> None:
    yard.behave(model=["slow:0.5"])
    plan = make_plan(yard.store)
    with yard.backend(plan) as backend, yard.backend(plan) as reader:
        backend.start(plan.stage("model"))
        wait_for(lambda: "model" in yard.ledger())
        ended = threading.Thread(target=observe_end, args=(backend, plan, "model"))
        ended.start()  # gives the lock back when the stage has ended
        began = time.monotonic()
        assert list(reader.logs(plan.stage("model"), follow=True)) == ["model: attempt 1"]
        assert time.monotonic() - began > 0.3
        ended.join()


# Base models that are used in place ---------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "base model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    return folder


def test_a_marker_counts_only_while_the_model_lies_where_it_points(yard: Yard, model_folder: Path) -> None:
    scratch = ArtifactWriter(yard.store, "models/scratch")
    scratch.add_file("config.json", model_folder / "config.json")
    files = scratch.commit().files
    plan = make_plan(yard.store)
    stage = dataclasses.replace(
        plan.stage("model"), params=ModelParams(source="folder", location=str(model_folder)), inputs={}
    )
    assert not is_done(stage, yard.store)
    write_marker(yard.store, stage.output, Manifest(files=files, location=model_folder.as_uri()))
    assert is_done(stage, yard.store)
    moved = model_folder.with_name("elsewhere")
    elsewhere = dataclasses.replace(stage, params=ModelParams(source="folder", location=str(moved)))
    model_folder.rename(moved)
    assert not is_done(stage, yard.store)
    assert not is_done(elsewhere, yard.store)  # there, but the marker points to the old place
    write_marker(yard.store, stage.output, Manifest(files=files, location=moved.as_uri()))
    assert is_done(elsewhere, yard.store)
    (moved / "config.json").write_text("{}")
    assert not is_done(elsewhere, yard.store)


def test_a_model_that_is_not_in_the_cache_is_fetched_by_a_stage_process(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork that looked for it goes on as `python -m train model`, under the same lock."""
    package = yard.folder / "train"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; print('fetching', sys.argv[1]); sys.exit(0)")
    monkeypatch.setattr("launcher.backends.processes.PROJECT_ROOT", yard.folder)
    monkeypatch.setattr("launcher.backends.processes.STAGE_COMMAND", (sys.executable, "-P", "-m", "train"))
    params = ModelParams(source="hub", location="org/name", revision="0" * 40)
    plan = make_plan(yard.store)
    stage = dataclasses.replace(plan.stage("model"), params=params, inputs={})
    plan = dataclasses.replace(plan, stages=[stage])
    backend = local.LocalBackend(
        plan, plan.run_id, yard.store, yard.work, host_command=FAKE_HOST, light=lambda *_: False
    )
    write_marker(
        yard.store,
        stage.output,
        Manifest(files=[FileEntry("config.json", 2, "0" * 64)], location="file:///gone"),
    )
    with backend:
        backend.start(stage)
        assert observe_end(backend, plan, "model").output.splitlines()[-1] == "fetching model"
    assert read_marker(yard.store, stage.output) is None  # the stale one would pass for the model


def _fork(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
