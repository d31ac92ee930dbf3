"""`launcher.pilots.stored_logs`: logs out of the store, while they are written and afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.contract import StageKind
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.logs import LogWriter
from artifacts.store import Store
from launcher.pilots import stored_logs
from launcher.pilots.stored_logs import StoredLogs
from tests import plan_parts

TRAIN = plan_parts.stage(StageKind.TRAIN, None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_logs, "_LAST_LINES_S", 0.0)


def write(store: Store, text: str, source: str = "main") -> None:
    with LogWriter(store, "bot-1", "train", source) as log:
        log.write(text)


def logs(store: Store, *, alive: bool = True, happenings: list[object] | None = None) -> StoredLogs:
    """Logs of a run in which, between two looks, one of `happenings` is called each time."""
    left = list(happenings or [])

    def sleep(seconds: float) -> None:
        if left:
            left.pop(0)()  # type: ignore[operator]

    return StoredLogs(store, "bot-1", lambda: alive, 1.0, sleep)


def test_the_newest_attempt_is_shown_and_each_is_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for attempt in ("first", "second"):
        write(store, f"{attempt}\n")
    assert list(logs(store).lines(TRAIN)) == ["second"]
    listed = logs(store).attempts(TRAIN)
    assert len(listed) == 2 and listed == sorted(listed)
    assert listed[0].startswith(f"{store.uri}/runs/bot-1/logs/train/")


def test_ranks_are_marked_and_one_can_be_chosen(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for source in ("main", "rank-0", "rank-3"):
        write(store, f"of {source}\n", source)
    assert sorted(logs(store).lines(TRAIN)) == ["[rank-0] of rank-0", "[rank-3] of rank-3", "of main"]
    assert list(logs(store).lines(TRAIN, rank=3)) == ["of rank-3"]
    assert list(logs(store).lines(TRAIN, rank=7)) == []


def test_following_goes_on_over_a_restart_to_the_end_of_the_stage(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    events = Events(store, "bot-1", "train")
    events.say("started")
    write(store, "first\n")
    happenings: list[object] = [
        lambda: events.say("restarted", reason="its node was lost"),
        lambda: write(store, "second\n"),
        lambda: events.say("finished"),
        lambda: write(store, "last words\n", "rank-0"),
    ]
    lines = list(logs(store, happenings=happenings).lines(TRAIN, follow=True))
    assert lines == ["first", "second", "[rank-0] last words"]


def test_following_ends_when_nobody_drives(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    Events(store, "bot-1", "train").say("started")
    write(store, "as far as it came\n")
    assert list(logs(store, alive=False).lines(TRAIN, follow=True)) == ["as far as it came"]
