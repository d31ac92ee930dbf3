"""Logs in the store: every line once and in order, whatever becomes of the objects meanwhile; a store that
fails holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts import logs
from artifacts.local import LocalStore
from artifacts.logs import LogReader, LogWriter, flush_interval_s

RUN, STAGE = "bot-1", "train"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def objects(store: LocalStore) -> list[str]:
    return [info.key for info in store.list(logs.logs_prefix(RUN, STAGE))]


def poll_until(reader: LogReader, condition: Callable[[list[str]], bool]) -> list[str]:
    lines: list[str] = []
    deadline = time.monotonic() + 10
    while not condition(lines):
        assert time.monotonic() < deadline, lines
        lines += reader.poll()
        time.sleep(0.01)
    return lines


def write(store: LocalStore, *lines: str, source: str = "main") -> None:
    with LogWriter(store, RUN, STAGE, source) as log:
        log.write("".join(f"{line}\n" for line in lines))


def test_a_line_is_there_while_its_process_goes_on(store: LocalStore) -> None:
    reader = LogReader(store, RUN, STAGE)
    with LogWriter(store, RUN, STAGE) as log:
        print("first", file=log)
        assert poll_until(reader, lambda lines: len(lines) == 1) == ["first"]
        print("second", file=log, end="")
    assert reader.poll() == ["second"]
    assert reader.poll() == []


def test_merged_objects_change_nothing_for_a_reader(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FIRST_FLUSH_S", 0.0)  # an object a line, or nearly so
    monkeypatch.setattr(logs, "LARGEST_BYTES", 800)
    reader, most, seen = LogReader(store, RUN, STAGE), 0, list[str]()
    with LogWriter(store, RUN, STAGE) as log:
        for number in range(300):
            log.write(f"line {number}\n")
            while number % 7 == 0 and len(seen) <= number:  # so that no flush finds more than seven lines
                seen += reader.poll()
                most = max(most, len(objects(store)))
    seen += reader.poll()
    assert seen == [f"line {number}" for number in range(300)]
    assert 1 < most < 60
    sizes = [store.root.joinpath(key).stat().st_size for key in objects(store)]
    assert max(sizes) <= 800 and len(sizes) <= sum(sizes) / 400, "merged as far as the limit allows"
    assert LogReader(store, RUN, STAGE).poll() == seen


def test_an_object_merged_away_after_it_was_listed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a", "b")
    (key,) = objects(store)
    reader = LogReader(store, RUN, STAGE)
    gone = list(store.list(logs.logs_prefix(RUN, STAGE)))
    data = store.read_bytes(key)
    store.delete(key)
    with monkeypatch.context() as patched:
        patched.setattr(store, "list", lambda prefix: iter(gone))
        assert reader.poll() == []
    store.write_bytes(key, data)
    assert reader.poll() == ["a", "b"]


def test_streams_in_the_order_of_their_starts(store: LocalStore) -> None:
    for source, line in (("main", "1"), ("rank-0", "2"), ("rank-10", "3"), ("rank-0", "4")):
        write(store, line, source=source)
        time.sleep(0.002)
    assert LogReader(store, RUN, STAGE).poll() == ["1", "[rank-0] 2", "[rank-10] 3", "[rank-0] 4"]
    assert LogReader(store, RUN, STAGE, "rank-0").poll() == ["2", "4"]
    assert LogReader(store, RUN, STAGE, "rank-0", attempt=1).poll() == ["2"]
    assert LogReader(store, RUN, STAGE, "rank-0", attempt=-1).poll() == ["4"]
    assert LogReader(store, RUN, STAGE, attempt=2).poll() == ["[rank-0] 4"]
    assert LogReader(store, RUN, STAGE, "rank-1").poll() == []
    assert LogReader(store, RUN, "merge").poll() == []


def test_bytes_cut_anywhere(store: LocalStore) -> None:
    text = "Grüße\r\n 10 %\r 20 %\n".encode()
    with LogWriter(store, RUN, STAGE) as log:
        for byte in text:
            log.write_bytes(bytes([byte]))
    assert LogReader(store, RUN, STAGE).poll() == ["Grüße", " 20 %"]


def test_who_prints_no_newline_is_not_held_back(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FIRST_FLUSH_S", 0.01)
    with LogWriter(store, RUN, STAGE) as log:
        log.write("." * (logs.LONGEST_LINE_BYTES + 1))
        deadline = time.monotonic() + 10
        while not objects(store):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert LogReader(store, RUN, STAGE).poll() == ["." * (logs.LONGEST_LINE_BYTES + 1)]


def test_secrets_do_not_reach_the_store(store: LocalStore) -> None:
    with LogWriter(store, RUN, STAGE, redact=lambda text: text.replace("hunter2", "***")) as log:
        for part in ("pass", "word hun", "ter2\n"):
            log.write(part)
    assert LogReader(store, RUN, STAGE).poll() == ["password ***"]


class FailingStore(LocalStore):
    """Out of reach until `back` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.back = threading.Event()

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        if not self.back.is_set():
            raise ConnectionError("no route to host")
        return super().write_bytes(key, data, if_absent=if_absent)


def test_a_store_out_of_reach_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FIRST_FLUSH_S", 0.01)
    store = FailingStore(tmp_path / "store")
    log = LogWriter(store, RUN, STAGE, buffer_bytes=1000)
    started = time.monotonic()
    for number in range(10_000):
        log.write(f"line {number}\n")
    assert time.monotonic() - started < 2
    store.back.set()
    log.close()
    lines = LogReader(store, RUN, STAGE).poll()
    missing = [line for line in lines if "bytes are missing here" in line]  # told with each take
    assert lines[-1] == "line 9999" and 30 < len(lines) < 500
    kept = sum(len(line) + 1 for line in lines if line not in missing)
    whole = sum(len(f"line {number}\n") for number in range(10_000))
    told = sum(int(line.strip("[").split()[0]) for line in missing)
    assert told == whole - kept, "what is missing is told to the byte"


def test_the_end_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CLOSE_S", 0.1)
    log = LogWriter(FailingStore(tmp_path / "store"), RUN, STAGE)
    log.write("lost\n")
    started = time.monotonic()
    log.close()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("age_s", "interval_s"), [(0, 1), (90, 1), (500, 5), (1e6, 10)])
def test_old_streams_flush_less_often(age_s: float, interval_s: float) -> None:
    assert flush_interval_s(age_s) == interval_s
