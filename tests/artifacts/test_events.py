from __future__ import annotations

import time
from pathlib import Path

from artifacts.events import Events, events_prefix, stop_key
from artifacts.local import LocalStore
from artifacts.segments import read_all


def rows(store: LocalStore) -> list[dict[str, object]]:
    return list(read_all(store, events_prefix("run")))


def test_events_are_readable_at_once_progress_when_due(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    events = Events(store, "run", "data", flush_every_s=1e9)
    events.progress(1, None, "records")
    assert rows(store) == []
    before = time.time()
    events.say("note", text="half done")
    events.progress(2, 10, "records", loss=0.5)
    events.flush()
    progress, note, last = rows(store)
    assert (progress["stage"], progress["kind"], progress["done"], progress["total"]) == (
        "data",
        "progress",
        1,
        None,
    )
    assert note["text"] == "half done" and abs(float(str(note["time_s"])) - before) < 60
    assert (last["done"], last["total"], last["unit"], last["loss"]) == (2, 10, "records", 0.5)


def test_writers_of_one_stage_do_not_meet(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(3):
        Events(store, "run", "train").say("started", pid=number)
    assert sorted(str(row["pid"]) for row in rows(store)) == ["0", "1", "2"]
    assert len({info.key for info in store.list(events_prefix("run"))}) == 3


def test_rows_of_writers_that_follow_one_another_keep_their_order(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(20):
        Events(store, "run", "train").say("note", text=str(number))
    in_time = sorted(rows(store), key=lambda row: float(str(row["time_s"])))
    assert [row["text"] for row in in_time] == [str(number) for number in range(20)]


def test_the_stop_request_is_no_event(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write_bytes(stop_key("run"), b"{}")
    assert rows(store) == []
