"""The stage host as its pilot sees it: a real process, spoken to over pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Stands in for `train.preload` and the stages: what the host does is the same whatever they import.
STUBS = {
    "train/preload.py": "import time\ndef preload():\n    time.sleep(0.5)\n",
    "train/prepare.py": "",
    "train/twin.py": "",
    "train/__main__.py": """
import os, signal, sys, time

def main(argv):
    print("stage", argv, os.environ.get("COLOUR"), flush=True)
    if "drain" in argv:
        signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), os._exit(75)))
    if "exit" in argv:
        return int(argv[-1])
    if "usage" in argv:
        raise SystemExit(2)
    if "crash" in argv:
        raise RuntimeError("broken")
    time.sleep(60)
""",
}


class Pilot:
    def __init__(self, folder: Path, stubs: dict[str, str] | None = None) -> None:
        self.folder = folder
        package = folder / "train"
        package.mkdir()
        (package / "__init__.py").touch()
        for name in ("host.py", "processes.py"):
            (package / name).symlink_to(ROOT / "train" / name)
        for path, text in (STUBS | (stubs or {})).items():
            (folder / path).write_text(text)
        command = [sys.executable, "-m", "train.host"]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, request_id: str, *argv: str, **environment: str) -> None:
        request = {"id": request_id, "argv": argv, "log": str(self.log(request_id)), "env": environment}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def started(self, request_id: str) -> int:
        """Waits until the stage has said its first word; returns its pid."""
        answer = self.answer()
        while "pid" not in answer:
            answer = self.answer()
        assert answer["id"] == request_id
        _until(lambda: self.log(request_id).exists() and "stage" in self.log(request_id).read_text())
        return answer["pid"]

    def log(self, request_id: str) -> Path:
        return self.folder / "logs" / f"{request_id}.log"


def _until(condition: Any, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[Pilot]:
    pilot = Pilot(tmp_path)
    yield pilot
    pilot.process.kill()
    pilot.process.wait()
    for stream in (pilot.process.stdin, pilot.process.stdout):
        stream.close()


def test_requests_before_ready_wait_for_what_they_need(pilot: Pilot) -> None:
    pilot.ask("1", "train", "exit", "3", COLOUR="blue")
    pilot.ask("2", "prepare", "exit", "0")
    answers = [pilot.answer() for _ in range(5)]
    first = next(i for i, answer in enumerate(answers) if answer == {"ready": True})
    assert {"id": "2", "exit": 0} in answers[:first], "prepare needs nothing heavy"
    assert answers[-1] == {"id": "1", "exit": 3}
    assert pilot.log("1").read_text() == "stage ['train', 'exit', '3'] blue\n"


@pytest.mark.parametrize(("word", "code"), [("usage", 2), ("crash", 1)])
def test_every_ending_is_reported(pilot: Pilot, word: str, code: int) -> None:
    pilot.ask("1", "prepare", word)
    pid = pilot.answer()["pid"]
    assert pilot.answer() in ({"id": "1", "exit": code}, {"ready": True})
    assert not _alive(pid)
    assert ("RuntimeError: broken" in pilot.log("1").read_text()) == (word == "crash")


def test_a_killed_stage_is_reported_with_its_signal(pilot: Pilot) -> None:
    assert pilot.answer() == {"ready": True}
    pilot.ask("1", "train", "sleep")
    os.kill(pilot.started("1"), signal.SIGKILL)
    assert pilot.answer() == {"id": "1", "exit": -9}


def test_the_end_of_stdin_drains(pilot: Pilot) -> None:
    assert pilot.answer() == {"ready": True}
    pilot.ask("1", "train", "drain")
    pilot.started("1")
    pilot.process.stdin.close()
    assert pilot.answer() == {"id": "1", "exit": 75}
    assert pilot.process.wait(10) == 0
    assert pilot.log("1").read_text().endswith("drained\n")


def test_stages_die_with_the_host(pilot: Pilot) -> None:
    assert pilot.answer() == {"ready": True}
    pids = []
    for request_id, stage in (("1", "train"), ("2", "prepare")):
        pilot.ask(request_id, stage, "drain")
        pids.append(pilot.started(request_id))
    pilot.process.kill()
    _until(lambda: not any(map(_alive, pids)))


def test_the_host_ends_when_an_import_fails(tmp_path: Path) -> None:
    pilot = Pilot(tmp_path, {"train/preload.py": "raise ImportError('no torch')\n"})
    pilot.ask("1", "train", "sleep")
    assert pilot.process.wait(10) == 1
    assert pilot.process.stdout.read() == b""


def _threads_of_parent() -> int:
    return len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))


def test_the_libraries_start_no_threads(ranks: Any) -> None:
    """In the server that ranks are forked from, which imports what the heavy nursery does."""
    assert ranks(1, _threads_of_parent) == [1]
