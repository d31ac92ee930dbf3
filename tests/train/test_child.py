"""Work in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from train import child
from train.child import in_child
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


def telling(number: int, told: Callable[..., None]) -> int:
    os.write(1, b"said\n")
    told(1, number, "layers")
    return number + 1


def refusing(told: Callable[..., None]) -> None:
    raise StageUserError("can't", "do other")


def failing(told: Callable[..., None]) -> None:
    os.write(2, b"last words\n")
    raise ValueError("odd\nand more")


def dying(told: Callable[..., None]) -> None:
    os.kill(os.getpid(), 9)


def test_a_child_returns_and_tells(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    found = in_child("adding", telling, 2, told=lambda *far: told.append(far), log=tmp_path / "log")
    assert (found, told) == (3, [(1, 2, "layers")])
    assert (tmp_path / "log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (refusing, StageUserError, "can't; do other"),
        (failing, StageError, "trying failed: ValueError: odd"),
        (dying, StageError, "trying failed: its process was killed by signal 9; if the machine"),
    ],
)
def test_how_a_child_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], function: Any, kind: type[StageError], text: str
) -> None:
    with pytest.raises(StageError, match=text) as failure:
        in_child("trying", function, told=lambda *_: None, log=tmp_path / "log")
    assert type(failure.value) is kind
    assert ("last words" in capfd.readouterr().err) == (function is failing)
