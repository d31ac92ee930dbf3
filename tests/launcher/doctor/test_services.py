from __future__ import annotations

import datetime
from pathlib import Path

from artifacts.local import LocalStore
from launcher.doctor.services import bucket, clock
from tests.launcher.doctor.standin import StandInKube


class Careless(LocalStore):
    """A store that ignores conditions, as some S3 services do."""

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        return super().write_bytes(key, data)


class Forgetful(LocalStore):
    def read_bytes(self, key: str) -> bytes:
        return b""


def test_a_sound_store_is_left_as_it_was(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert bucket(store).level == "ok"
    assert not list(store.list(""))


def test_a_store_that_ignores_conditional_writes(tmp_path: Path) -> None:
    check = bucket(Careless(tmp_path))
    assert check.level == "failure"
    assert "If-None-Match" in check.found


def test_a_store_that_loses_bytes(tmp_path: Path) -> None:
    assert bucket(Forgetful(tmp_path)).level == "failure"


def test_clocks() -> None:
    def at(offset_s: float) -> str:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_s)
        return clock(StandInKube(now=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))).level

    assert at(0) == "ok"
    assert at(-300) == "failure"
    assert at(300) == "failure"
