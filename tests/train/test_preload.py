"""What ranks are forked from: a process that has the libraries and a single thread."""

from __future__ import annotations

from pathlib import Path

from tests.train.conftest import Ranks


def imported() -> tuple[int, set[str]]:
    import os
    import sys

    return os.getppid(), {
        name for name in ("transformers.trainer", "deepspeed", "peft", "ray") if name in sys.modules
    }


def test_the_server_has_the_libraries_and_one_thread(ranks: Ranks) -> None:
    server, modules = ranks(1, imported)[0]
    assert modules == {"transformers.trainer", "deepspeed", "peft"}
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
