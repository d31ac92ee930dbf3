"""Work in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

import pytest

from train.gguf_files import child
from train.gguf_files.child import in_child
from train.stage import StageError, StageUserError


def refuse() -> NoReturn:
    raise StageUserError("the model is odd", "take another")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_value_comes_back_from_another_process() -> None:
    assert in_child("adding", lambda a, b: (a + b, os.getpid() != os.getppid()), 1, 2) == (3, True)
    assert in_child("asking", os.getpid) != os.getpid()


def test_ticks_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_TICK_S", 0.01)
    ticks: list[int] = []
    in_child("sleeping", time.sleep, 0.1, tick=lambda: ticks.append(1))
    assert ticks


def test_failures_are_told_apart() -> None:
    with pytest.raises(StageUserError, match="the model is odd; take another"):
        in_child("looking", refuse)
    with pytest.raises(StageError, match="dividing failed: ZeroDivisionError"):
        in_child("dividing", lambda: 1 // 0)
    with pytest.raises(
        StageError, match=f"quantizing failed: its process was killed by signal {signal.SIGKILL}"
    ):
        in_child("quantizing", crash)
    with pytest.raises(StageError, match="leaving failed: its process ended with 3"):
        in_child("leaving", os._exit, 3)
