"""Which stages of a plan are complete, asked of stores that answer, refuse, or hang."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts.contract import Plan, StageKind
from artifacts.local import LocalStore
from artifacts.manifest import MARKER, Manifest, write_marker
from launcher.errors import ClusterError
from launcher.stages.done import ask
from tests.launcher.plans import make_plan, write_job


class Remote(LocalStore):
    """A store that says it is elsewhere, and answers as `behave` does."""

    def __init__(self, root: Path, behave: Any = lambda: None) -> None:
        super().__init__(root)
        self._behave = behave

    def local_path(self, key: str) -> Path | None:
        return None

    def read_bytes(self, key: str) -> bytes:
        self._behave()
        return super().read_bytes(key)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    write_job(tmp_path)
    return make_plan(tmp_path)


def complete(store: LocalStore, plan: Plan, *kinds: StageKind) -> None:
    for kind in kinds:
        write_marker(store, plan.stage(kind).output, Manifest(files=[]))
        assert store.exists(f"{plan.stage(kind).output}/{MARKER}")


@pytest.mark.parametrize("store", [LocalStore, Remote])
def test_the_store_is_asked(plan: Plan, tmp_path: Path, store: type[LocalStore]) -> None:
    asked = store(tmp_path / "store")
    complete(asked, plan, StageKind.PREPARE, StageKind.DATA)
    answer = ask(plan, asked)
    assert (answer.complete, answer.why) == ([StageKind.DATA, StageKind.PREPARE], "")


def test_a_refusal_is_told_and_no_error(plan: Plan, tmp_path: Path) -> None:
    def refuse() -> None:
        raise ClusterError("bucket x", "no credentials", "set AWS_PROFILE")

    answer = ask(plan, Remote(tmp_path, refuse))
    assert (answer.complete, answer.why) == (None, "bucket x: no credentials; set AWS_PROFILE")


def test_a_store_that_hangs_is_left_behind(plan: Plan, tmp_path: Path) -> None:
    never = threading.Event()
    began = time.monotonic()
    answer = ask(plan, Remote(tmp_path, lambda: never.wait(60)), timeout_s=0.2)
    never.set()
    assert (answer.complete, answer.why) == (None, "the store gave no answer in 0.2 s")
    assert time.monotonic() - began < 30
