from __future__ import annotations

import threading
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from artifacts.segments import SegmentReader, SegmentWriter, read_all
from tests.artifacts.remote import RemoteStore

PREFIX = "train/key/metrics"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def names(store: LocalStore) -> list[str]:
    return [info.key.removeprefix(f"{PREFIX}/") for info in store.list(PREFIX)]


def test_rows_are_flushed_when_due(store: LocalStore) -> None:
    now = [100.0]
    writer = SegmentWriter(store, PREFIX, "w", flush_every_s=5, clock=lambda: now[0])
    writer.append({"step": 1})
    now[0] += 4.9
    writer.append({"step": 2})
    assert names(store) == []
    now[0] += 0.1
    writer.append({"step": 3})
    assert names(store) == ["w-000000.jsonl"]
    writer.append({"step": 4})
    writer.flush()
    writer.flush()  # nothing new: no empty segment
    assert names(store) == ["w-000000.jsonl", "w-000001.jsonl"]
    assert [row["step"] for row in read_all(store, PREFIX)] == [1, 2, 3, 4]


def test_a_reader_gets_each_row_once(store: LocalStore) -> None:
    reader = SegmentReader(store, PREFIX)
    assert reader.poll() == []
    for name in ("b", "a"):
        SegmentWriter(store, PREFIX, name, flush_every_s=0).append({"from": name, "text": "ü\u2028\n"})
    assert reader.poll() == [{"from": name, "text": "ü\u2028\n"} for name in ("a", "b")]
    assert reader.poll() == []
    SegmentWriter(store, PREFIX, "aa", flush_every_s=0).append({"from": "aa"})
    assert reader.poll() == [{"from": "aa"}]


def test_ten_segments_and_more_stay_in_order(store: LocalStore) -> None:
    writer = SegmentWriter(store, PREFIX, "w", flush_every_s=0)
    for step in range(12):
        writer.append({"step": step})
    assert [row["step"] for row in read_all(store, PREFIX)] == list(range(12))


def test_a_row_that_is_not_json_is_refused_alone(store: LocalStore) -> None:
    writer = SegmentWriter(store, PREFIX, "w", flush_every_s=1e9)
    writer.append({"loss": 1.0})
    for value, error in ((float("nan"), ValueError), ({1, 2}, TypeError)):
        with pytest.raises(error):
            writer.append({"loss": value})
    writer.append({"loss": 0.5})
    writer.flush()
    assert [row["loss"] for row in read_all(store, PREFIX)] == [1.0, 0.5]


def test_a_row_is_kept_as_it_was_when_appended(store: LocalStore) -> None:
    writer = SegmentWriter(store, PREFIX, "w", flush_every_s=1e9)
    row = {"step": 1}
    writer.append(row)
    row["step"] = 2
    writer.flush()
    assert list(read_all(store, PREFIX)) == [{"step": 1}]


def test_threads_lose_no_rows(store: LocalStore) -> None:
    writer = SegmentWriter(store, PREFIX, "w", flush_every_s=0.005)

    def work(thread: int) -> None:
        for number in range(50):
            writer.append({"thread": thread, "number": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    rows = [(row["thread"], row["number"]) for row in read_all(store, PREFIX)]
    assert sorted(rows) == [(thread, number) for thread in range(4) for number in range(50)]


def test_a_remote_store_is_read_several_segments_at_a_time_in_their_order(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "store")
    writer = SegmentWriter(store, "events", "one")
    for number in range(40):
        writer.append({"number": number})
        writer.flush()
    reader = SegmentReader(store, "events")
    assert [row["number"] for row in reader.poll()] == list(range(40))
    assert reader.poll() == []


@pytest.mark.parametrize(("remote", "age_s", "segments"), [(False, 600, 10), (True, 10, 10), (True, 600, 1)])
def test_in_a_remote_store_an_old_stream_is_written_less_often(
    tmp_path: Path, remote: bool, age_s: int, segments: int
) -> None:
    """Ten rows in five seconds."""
    store, now = (RemoteStore if remote else LocalStore)(tmp_path / "store"), [0.0]
    writer = SegmentWriter(store, "events", "one", flush_every_s=0.5, clock=lambda: now[0])
    now[0] = float(age_s)
    writer.flush()
    for number in range(10):
        now[0] += 0.5
        writer.append({"number": number})
    writer.flush()
    assert len(list(store.list("events"))) == segments
