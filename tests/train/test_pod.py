"""A stage in a container: everything it prints is in the store, however it ends, and its end is passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.contract import MergeParams, StageKind
from artifacts.local import LocalStore
from artifacts.logs import LogReader
from tests import plan_parts

ROOT = Path(__file__).parents[2]
RUN = "bot-1"
SECRET = "correct-horse-battery"

#: Stands in for `train/__main__.py`: `python -m train` finds this package first.
STAGE = """
import ctypes, os, signal, sys, time
print("argv", *sys.argv[1:])
print("from Python", flush=True)
ctypes.CDLL(None).puts(b"from C")
ctypes.CDLL(None).fflush(None)
os.system("echo from a child >&2")
"""


def start(folder: Path, body: str, *more: str) -> tuple[LocalStore, subprocess.Popen[bytes]]:
    store = LocalStore(folder / "store")
    plan = plan_parts.plan(store, [plan_parts.stage(StageKind.MERGE, MergeParams())])
    (folder / "plan.json").write_bytes(plan.to_json())
    # `train.pod` itself is the real one; the child's `train` is the stand-in.
    package = folder / "code" / "train"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAGE + body)
    launch = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from train.pod import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", launch, "merge", "--plan", str(folder / "plan.json"), "--run", RUN]
    command += ["--work", str(folder / "work"), *more]
    environment = {**os.environ, "PYTHONPATH": str(folder / "code"), "HF_TOKEN": SECRET}
    return store, subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)


def lines(store: LocalStore) -> list[str]:
    return LogReader(store, RUN, "merge").poll()


@pytest.mark.parametrize(
    ("body", "code"), [("", 0), ("sys.exit(75)", 75), ("raise SystemExit('no')", 1), ("os.abort()", 134)]
)
def test_output_and_exit_code(tmp_path: Path, body: str, code: int) -> None:
    store, process = start(tmp_path, body)
    printed = process.communicate(timeout=30)[0].decode().splitlines()
    assert process.returncode == code
    told = lines(store)
    assert told == printed
    assert {"from Python", "from C", "from a child"} < set(told)
    assert told[0] == f"argv merge --plan {tmp_path}/plan.json --run {RUN} --work {tmp_path}/work"


def test_another_module_may_carry_it_out(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "other.py").write_text("import sys; print('other', *sys.argv[1:])")
    store, process = start(tmp_path, "", "--module", "other")
    assert process.wait(30) == 0
    argv = f"merge --plan {tmp_path}/plan.json --run {RUN} --work {tmp_path}/work"
    assert lines(store) == [f"other {argv}"]


def test_last_words_of_a_killed_stage(tmp_path: Path) -> None:
    body = "print('x' * 300_000, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    store, process = start(tmp_path, body)
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert lines(store)[-2:] == ["x" * 300_000, "The stage was ended by SIGKILL."]


def test_a_request_to_stop_is_passed_on(tmp_path: Path) -> None:
    body = """
signal.signal(signal.SIGTERM, lambda *_: (print("saving", flush=True), sys.exit(75)))
print("ready", flush=True)
time.sleep(60)
"""
    store, process = start(tmp_path, body)
    deadline = time.monotonic() + 30
    while "ready" not in lines(store):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert lines(store)[-1] == "saving"


def test_a_left_over_process_does_not_keep_the_pod(tmp_path: Path) -> None:
    body = "os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '30')"
    store, process = start(tmp_path, body)
    started = time.monotonic()
    assert process.wait(20) == 0 and time.monotonic() - started < 15
    assert "from Python" in lines(store)


def test_no_secret_in_the_store(tmp_path: Path) -> None:
    store, process = start(tmp_path, "print('token is', os.environ['HF_TOKEN'])")
    process.communicate(timeout=30)
    assert lines(store)[-1] == "token is [redacted]"
