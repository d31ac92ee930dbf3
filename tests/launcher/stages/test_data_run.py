from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from artifacts.contract import DataFile, DataParams, StageKind, decode
from artifacts.events import Events, events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import read_marker, verify
from artifacts.records import DataReport
from artifacts.segments import read_all
from launcher.errors import UserError
from launcher.stages import data_run
from launcher.stages.data_run import fingerprints, shards
from tests import plan_parts

OUTPUT = "data/key"


def alpaca(*pairs: tuple[str, str]) -> bytes:
    return b"".join(json.dumps({"instruction": q, "output": a}).encode() + b"\n" for q, a in pairs)


def data_file(path: Path, content: bytes | None = None) -> DataFile:
    if content is not None:
        path.write_bytes(content)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return DataFile(path=str(path), size_bytes=len(content), sha256=digest, format="alpaca")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def run(store: LocalStore, splits: dict[str, list[DataFile]], **options: object) -> DataReport:
    params = DataParams(splits=splits, **options)
    stage = plan_parts.stage(StageKind.DATA, params)
    events = Events(store, "run", "data")
    report = data_run.run(stage, store, events)
    events.flush()
    return report


def staged(store: LocalStore, split: str) -> list[tuple[str, str]]:
    """(question, answer) of each record, over all shards."""
    found = []
    for info in store.list(OUTPUT):
        if re.fullmatch(rf"{OUTPUT}/{split}-\d{{5}}\.jsonl", info.key):
            for line in store.read_bytes(info.key).splitlines():
                first, second = json.loads(line)["messages"]
                found.append((first["content"], second["content"]))
    return found


def test_stages_every_record_of_every_file(store: LocalStore, tmp_path: Path) -> None:
    rows = [(f"q{n}", f"a{n}") for n in range(5)]
    train = [
        data_file(tmp_path / "1.jsonl", alpaca(*rows[:3])),
        data_file(tmp_path / "2.jsonl", alpaca(*rows[3:])),
    ]
    test = tmp_path / "t.csv"
    report = run(store, {"train": train, "test": [data_file(test, b"instruction,output\nq,a\n")]})
    assert staged(store, "train") == rows and staged(store, "test") == [("q", "a")]
    assert verify(store, OUTPUT) == []
    marker = read_marker(store, OUTPUT)
    assert marker is not None and marker.facts == {"records": {"train": 5, "test": 1}}
    assert decode(DataReport, json.loads(store.read_bytes(f"{OUTPUT}/report.json"))) == report
    split = report.splits["train"]
    assert [file.said for file in split.files] == ["JSON lines, format alpaca"] * 2
    assert (split.records, split.characters, split.longest_record_characters) == (
        5,
        {"user": 10, "assistant": 10},
        4,
    )
    last = [row for row in read_all(store, events_prefix("run")) if row["kind"] == "progress"][-1]
    assert last["done"] == last["total"] == sum(file.size_bytes for file in train) + test.stat().st_size


def test_shards_are_cut_by_size(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 200)
    rows = [(f"question {n}", f"answer {n}") for n in range(20)]
    report = run(store, {"train": [data_file(tmp_path / "a.jsonl", alpaca(*rows))]})
    assert staged(store, "train") == rows
    names = report.splits["train"].shards
    assert len(names) >= 5 and names == [f"train-{n:05d}.jsonl" for n in range(len(names))]
    assert verify(store, OUTPUT) == []


def test_bad_records_stop_the_stage_and_leave_nothing(store: LocalStore, tmp_path: Path) -> None:
    content = alpaca(("a", "b")) + b"{}\n" + alpaca(("c", "d")) + b"nonsense\n"
    with pytest.raises(UserError) as caught:
        run(store, {"train": [data_file(tmp_path / "a.jsonl", content)]})
    text = str(caught.value)
    assert "record 2 (line 2, byte 36): wrong columns" in text and "record 4" in text
    assert "2 of 4 records" in text and "on_error: skip" in text
    assert list(store.list("data")) == []


def test_many_bad_records_stop_the_stage_early(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(store, {"train": [data_file(tmp_path / "a.jsonl", b"{}\n" * 50)]})
    assert len(caught.value.problems) == 10 and "at least 10 of the first 10" in str(caught.value)


def test_skipped_records_are_counted_and_listed(store: LocalStore, tmp_path: Path) -> None:
    content = b"{}\n" * 150 + alpaca(("a", "b"))
    report = run(store, {"train": [data_file(tmp_path / "a.jsonl", content)]}, on_error="skip")
    split = report.splits["train"]
    assert (split.records, split.bad_records, len(split.bad)) == (1, 150, 100)
    second = split.bad[1]
    assert (second.file, second.number, second.byte_offset) == (str(tmp_path / "a.jsonl"), 2, 3)
    assert staged(store, "train") == [("a", "b")]


@pytest.mark.parametrize("content", [b"{}\n", b"[]", b"", b"\x1f\x8b"])
def test_a_split_of_which_nothing_is_left_is_an_error(
    content: bytes, store: LocalStore, tmp_path: Path
) -> None:
    good = data_file(tmp_path / "a.jsonl", alpaca(("a", "b")))
    with pytest.raises(UserError):
        run(store, {"train": [good], "eval": [data_file(tmp_path / "e.jsonl", content)]}, on_error="skip")
    assert list(store.list("data")) == []


@pytest.mark.parametrize("change", ["longer", "other bytes", "gone"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_that_changed_since_the_plan_is_refused(
    change: str, suffix: str, store: LocalStore, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"instruction": ["aa"], "output": ["bb"]}), path, compression="none")
    else:
        path.write_bytes(alpaca(("aa", "bb")))
    planned = data_file(path)
    content = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(content + b"\n" if change == "longer" else content.replace(b"bb", b"cc", 1))
    with pytest.raises(UserError, match="no such file" if change == "gone" else "changed since the plan"):
        run(store, {"train": [planned]})
    assert list(store.list("data")) == []


def test_a_rehearsal_takes_the_first_records_of_each_split(store: LocalStore, tmp_path: Path) -> None:
    rows = [(f"q{n}", f"a{n}") for n in range(9)]
    files = [data_file(tmp_path / f"{n}.jsonl", alpaca(*rows[n : n + 3])) for n in (0, 3, 6)]
    report = run(store, {"train": files}, limit_records=4)
    assert staged(store, "train") == rows[:4] and report.limited_to_records == 4


def test_repeats_and_overlap_are_counted(store: LocalStore, tmp_path: Path) -> None:
    train = alpaca(("a", "b"), ("a", "c"), ("a", "b"), ("d", "e"), ("a", "b"))
    test = alpaca(("a", "z"), ("x", "y"), ("d", "e"))
    report = run(
        store,
        {"train": [data_file(tmp_path / "a.jsonl", train)], "test": [data_file(tmp_path / "t.jsonl", test)]},
    )
    assert report.duplicates == 2 and report.overlap == {"test": 2}


def test_fingerprints_beyond_the_bound_are_counted_on_disk() -> None:
    values = [hash(str(n % 700)) for n in range(2000)]
    small, large = fingerprints.FingerprintBag(held_hashes=64), fingerprints.FingerprintBag()
    for value in values:
        small.add(value)
        large.add(value)
    assert small.duplicates() == large.duplicates() == 1300
    other = fingerprints.FingerprintBag(held_hashes=3)
    for n in range(650, 750):
        other.add(hash(str(n)))
    assert other.count_in(small) == other.count_in(large) == 50


def test_a_failing_write_comes_out(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("artifacts.local.os.fsync", full)
    params = DataParams(splits={"train": [data_file(tmp_path / "a.jsonl", alpaca(("a", "b")))]})
    stage = plan_parts.stage(StageKind.DATA, params)
    with pytest.raises(OSError, match="No space left"):
        data_run.run(stage, store, Events(LocalStore(tmp_path / "events"), "run", "data", flush_every_s=1e9))
    assert list(store.list("data")) == []


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"question {n}?", f"answer {n}") for n in range(start, start + count)]


def test_weights_repeat_and_thin_out_a_data_set(store: LocalStore, tmp_path: Path) -> None:
    half = dataclasses.replace(data_file(tmp_path / "a.jsonl", alpaca(*rows(10))), weight=0.5)
    twice = dataclasses.replace(data_file(tmp_path / "b.jsonl", alpaca(*rows(3, 10))), weight=2, data_set=1)
    report = run(store, {"train": [half, twice]})
    found = staged(store, "train")
    assert len(found) == 11 and [found.count(row) for row in rows(3, 10)] == [2, 2, 2]
    assert len(set(found) & set(rows(10))) == 5
    assert [(file.records, file.lines) for file in report.splits["train"].files] == [(10, 5), (3, 6)]
    assert report.duplicates == report.near_duplicates == 0 and report.splits["train"].records == 11


def test_a_limit_is_of_the_data_set(store: LocalStore, tmp_path: Path) -> None:
    files = [data_file(tmp_path / f"{n}.jsonl", alpaca(*rows(3, 3 * n))) for n in range(4)]
    limited = [dataclasses.replace(file, limit_records=4) for file in files[:3]]
    other = dataclasses.replace(files[3], data_set=1)
    report = run(store, {"train": [*limited, other]})
    assert staged(store, "train") == rows(4) + rows(3, 9)
    assert [file.records for file in report.splits["train"].files] == [3, 1, 3]
    (tmp_path / "1.jsonl").write_bytes(alpaca(*rows(3, 30)))
    with pytest.raises(UserError, match=r"1\.jsonl: the file has changed"):
        run(store, {"train": limited})


def test_a_rehearsal_takes_some_of_every_data_set(store: LocalStore, tmp_path: Path) -> None:
    files = [
        dataclasses.replace(data_file(tmp_path / f"{n}.jsonl", alpaca(*rows(9, 9 * n))), data_set=n)
        for n in range(3)
    ]
    run(store, {"train": files}, limit_records=6)
    assert staged(store, "train") == [row for n in range(3) for row in rows(2, 9 * n)]


def test_a_share_is_set_aside(store: LocalStore, tmp_path: Path) -> None:
    train = data_file(tmp_path / "a.jsonl", alpaca(*rows(200), *rows(5)))
    test = data_file(tmp_path / "t.jsonl", alpaca(*rows(3)))
    report = run(store, {"train": [train], "test": [test]}, eval_fraction=0.1)
    kept, aside = staged(store, "train"), staged(store, "eval")
    assert sorted(kept + aside) == sorted(rows(200) + rows(5)) and 5 < len(aside) < 45
    assert not set(kept) & set(aside) and report.overlap["eval"] == 0
    assert report.overlap["test"] + report.eval_test_overlap == 3
    assert report.splits["eval"].files[0].said == "set aside, 0.1 of the questions"
    marker = read_marker(store, OUTPUT)
    assert marker is not None and marker.facts["records"] == {
        "train": len(kept),
        "eval": len(aside),
        "test": 3,
    }


def test_nothing_can_be_set_aside_of_one_question(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is left for train: too few different questions"):
        run(
            store,
            {"train": [data_file(tmp_path / "a.jsonl", alpaca(("q", "a"), ("q", "b")))]},
            eval_fraction=0.5,
        )
    assert list(store.list("data")) == []


def test_a_shuffle_mixes_the_training_records_alone(store: LocalStore, tmp_path: Path) -> None:
    splits = {name: [data_file(tmp_path / f"{name}.jsonl", alpaca(*rows(50)))] for name in ("train", "test")}
    report = run(store, splits, shuffle=True)
    assert staged(store, "test") == rows(50)
    mixed = staged(store, "train")
    assert mixed != rows(50) and sorted(mixed) == sorted(rows(50)) and report.shuffled
    again = LocalStore(tmp_path / "again")
    run(again, splits, shuffle=True)
    assert staged(again, "train") == mixed


def test_near_duplicates_are_counted(store: LocalStore, tmp_path: Path) -> None:
    long = "Spaces  and\ncase change, over and over. " * 20
    pairs = [
        ("What is 2+2?", "4."),
        ("what is  2 + 2", "4"),
        ("What is 2+2?", "4."),
        ("What is 2+3?", "5"),
        (long, "b"),
    ]
    near = (long.upper().replace("  ", " ") + "!", "B")
    report = run(store, {"train": [data_file(tmp_path / "a.jsonl", alpaca(*pairs, near))]})
    assert (report.duplicates, report.near_duplicates) == (1, 2)


def test_what_is_not_passed_on_is_reported(store: LocalStore, tmp_path: Path) -> None:
    record = {"instruction": "a", "output": "b", "score": 1, "note": ""}
    file = data_file(tmp_path / "a.jsonl", (json.dumps(record) + "\n").encode() * 2)
    report = run(store, {"train": [file]})
    assert report.splits["train"].files[0].lost == {"score": 2}


def test_texts_tools_and_calls_are_staged(store: LocalStore, tmp_path: Path) -> None:
    text = dataclasses.replace(data_file(tmp_path / "a.txt", b"one\ntwo\n"), format="text")
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    messages = [{"role": "user", "content": "q"}, call]
    lines = json.dumps({"messages": messages, "tools": [{"name": "f"}]}).encode() + b"\n"
    chat = dataclasses.replace(data_file(tmp_path / "b.jsonl", lines * 2), format="messages", data_set=1)
    report = run(store, {"train": [text, chat]})
    staged_lines = store.read_bytes(f"{OUTPUT}/train-00000.jsonl").splitlines()
    assert [json.loads(line).get("text") for line in staged_lines] == ["one", "two", None, None]
    assert json.loads(staged_lines[2])["tools"][0]["function"] == {"name": "f"}
    assert (
        report.splits["train"].characters == {"text": 6, "user": 2, "assistant": 0} and report.duplicates == 1
    )


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_compressed_file_that_changed_is_refused(suffix: str, store: LocalStore, tmp_path: Path) -> None:
    import pyarrow

    def packed(content: bytes) -> bytes:
        raw = gzip.compress(content, mtime=0)
        return raw if suffix == "gz" else pyarrow.compress(content, codec="zstd", asbytes=True)

    path = tmp_path / f"a.jsonl.{suffix}"
    planned = data_file(path, packed(alpaca(("aa", "bb"))))
    run(store, {"train": [planned]})
    assert staged(store, "train") == [("aa", "bb")]
    other = packed(alpaca(("aa", "cc")))
    path.write_bytes(other + b"\0" * (planned.size_bytes - len(other)))
    with pytest.raises(UserError, match=r"changed since the plan|damaged"):
        run(store, {"train": [planned]})


def test_a_custom_file_is_carried_along(store: LocalStore, tmp_path: Path) -> None:
    source = b"raise SystemExit\ndef get_custom_dataset(config, tokenizer, split): return []\n"
    file = dataclasses.replace(data_file(tmp_path / "mine.py", source), format="custom")
    report = run(store, {"train": [file], "eval": [file]})
    assert store.read_bytes(f"{OUTPUT}/custom.py") == source and verify(store, OUTPUT) == []
    assert report.splits["eval"].shards == [] and "custom" in report.splits["train"].files[0].said
    (tmp_path / "mine.py").write_bytes(source.replace(b"[]", b"()"))
    with pytest.raises(UserError, match="changed since the plan"):
        run(store, {"train": [file]})
