"""A rank's output goes to the run's logs, and still to where Ray put it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from artifacts.local import LocalStore
from artifacts.logs import LogReader

ROOT = Path(__file__).parents[2]

RANK = """
import os, signal, sys
from train.tee import teed
print("before", flush=True)
with teed(sys.argv[1], "bot-1", "train", "rank-1"):
    print("from Python", flush=True)
    os.system("echo from a child >&2")
    print("x" * 200_000)  # more than a pipe holds
    exec(sys.argv[2])
print("after")
"""


def run(folder: Path, body: str) -> tuple[LocalStore, subprocess.CompletedProcess[str]]:
    store = LocalStore(folder / "store")
    command = [sys.executable, "-c", RANK, store.uri, body]
    return store, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def lines(store: LocalStore, last: str) -> list[str]:
    """All that rank 1 has said, once `last` is part of it: what copies outlives the rank."""
    reader, found = LogReader(store, "bot-1", "train", "rank-1"), list[str]()
    deadline = time.monotonic() + 10
    while last not in found:
        assert time.monotonic() < deadline, found
        found += reader.poll()
        time.sleep(0.02)
    return found


def test_what_a_rank_prints(tmp_path: Path) -> None:
    store, result = run(tmp_path, "print('last')")
    said = LogReader(store, "bot-1", "train").poll()
    assert said == [f"[rank-1] {line}" for line in ("from Python", "from a child", "x" * 200_000, "last")]
    assert result.stdout.splitlines() == ["before", *lines(store, "last"), "after"]


def test_last_words_of_a_killed_rank(tmp_path: Path) -> None:
    store, result = run(tmp_path, "print('last', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == -9
    assert lines(store, "last")[-1] == "last"
