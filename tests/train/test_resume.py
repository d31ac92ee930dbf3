"""A training that is killed and continued ends exactly as one that was left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from artifacts.contract import (
    EXIT_DONE,
    EXIT_DRAINED,
    EXIT_FAILED,
    EXIT_USER_ERROR,
    TrainParams,
    canonical_json,
)
from artifacts.events import stop_key
from artifacts.local import LocalStore
from artifacts.manifest import FileEntry, is_complete, read_marker, verify
from artifacts.segments import read_all
from tests.train import stage_runs, training
from tests.train.stage_runs import PREFIX, RUN_ID, Death
from train.checkpoint import Name, choose, listed
from train.trackers import EVENT_FILE

LORA = dataclasses.replace(training.LORA, dropout=0.1)  # so that the random state counts
STEPS_PER_EPOCH = stage_runs.ROWS // 4  # micro-batch 2, 2 ranks


def params(**changes: Any) -> TrainParams:
    defaults = {"method": "lora", "lora": LORA, "steps": 6, "save_every": 2, "keep": 2}
    return training.params(**(defaults | changes))


def losses(store: LocalStore) -> dict[int, float]:
    """By step; the last attempt's word counts."""
    from train import metrics

    return {row["step"]: row["loss"] for row in metrics.merged_from(store, PREFIX) if "loss" in row}


def attempts(store: LocalStore) -> dict[int, int]:
    """Which attempt made each step, at last."""
    from train import metrics

    return {row["step"]: row["attempt"] for row in metrics.merged_from(store, PREFIX) if "loss" in row}


def final_files(store: LocalStore) -> list[FileEntry]:
    """But for the metrics, which tell the time."""
    files = read_marker(store, f"{PREFIX}/final").files
    return [entry for entry in files if entry.path not in ("metrics.jsonl", EVENT_FILE)]


def said(store: LocalStore, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_all(store, f"runs/{RUN_ID}/events") if row["kind"] == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Uninterrupted trainings, each made once."""
    made: dict[bytes, LocalStore] = {}

    def of(wanted: TrainParams) -> LocalStore:
        key = canonical_json(wanted)
        if key not in made:
            made[key] = stage_runs.make_inputs(tmp_path_factory.mktemp("whole"))
            assert stage_runs.run(made[key], wanted) == EXIT_DONE
        return made[key]

    return of


@pytest.mark.parametrize(
    ("strategy", "method"),
    [
        ("ddp", "lora"),
        ("fsdp", "lora"),
        ("zero2", "lora"),
        ("zero3", "lora"),
        ("fsdp", "full"),
        ("zero3", "full"),
        pytest.param("zero1", "full", marks=pytest.mark.matrix),
    ],
)
def test_killed_and_continued_equals_uninterrupted(
    tmp_path: Path, whole: Any, strategy: str, method: str
) -> None:
    wanted = params(strategy=strategy, method=method, lora=LORA if method == "lora" else None)
    expected = whole(wanted)
    store = stage_runs.make_inputs(tmp_path)

    # A rank dies mid-epoch, so the group starts again; then all die right after the epoch's end.
    middle, after_epoch = Death(step=4, rank=1, attempt=1), Death(step=STEPS_PER_EPOCH + 1, attempt=2)
    assert stage_runs.run(store, wanted, middle, after_epoch) == -signal.SIGKILL
    (restart,) = said(store, "restarted")
    assert restart["attempt"] == 2
    assert "rank 1" in restart["reason"]
    assert stage_runs.run(store, wanted) == EXIT_DONE

    assert losses(store) == losses(expected)
    assert attempts(store) == {1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3}, "no more than one save interval is lost"
    assert final_files(store) == final_files(expected)
    assert [str(name) for name in sorted(listed(store, PREFIX))] == ["checkpoint-2-1", "checkpoint-4-2"]
    if method == "lora":
        for name in listed(store, PREFIX):
            assert_whole_adapter_only(store, f"{PREFIX}/{name}")
    assert_any_harm_is_noticed(store, newest=f"{PREFIX}/checkpoint-4-2", before=Name(2, 1))


def assert_any_harm_is_noticed(store: LocalStore, newest: str, before: Name) -> None:
    """Whichever file is deleted, truncated or has a bit flipped, the checkpoint before it is chosen."""
    folder = store.local_path(newest)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        data = file.read_bytes()
        flipped = bytes([data[0] ^ 1]) + data[1:]
        for harmed in (None, data[:-1], flipped):
            file.unlink() if harmed is None else file.write_bytes(harmed)
            assert choose(store, PREFIX).name == before, f"{file.name} was harmed"
        file.write_bytes(data)
    assert str(choose(store, PREFIX).name) == folder.name


def assert_whole_adapter_only(store: LocalStore, prefix: str) -> None:
    """The adapter is there in full shape, and the frozen base is not."""
    folder = store.local_path(prefix)
    with safe_open(folder / "adapter_model.safetensors", "np") as adapter:
        shapes = {name: tuple(adapter.get_slice(name).get_shape()) for name in adapter.keys()}  # noqa: SIM118
    with safe_open(store.local_path(f"{PREFIX}/final/adapter_model.safetensors"), "np") as final:
        assert shapes == {name: tuple(final.get_slice(name).get_shape()) for name in final.keys()}  # noqa: SIM118
    assert all(min(shape) > 0 for shape in shapes.values())
    with safe_open(store.local_path("models/key/model.safetensors"), "np") as base:
        frozen = [base.get_tensor(name).ravel()[:32].tobytes() for name in base.keys() if "proj" in name]  # noqa: SIM118
    for file in (file for file in folder.rglob("*") if file.is_file()):
        data = file.read_bytes()
        assert not any(weights in data for weights in frozen), f"{file.name} holds frozen weights"


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, whole: Any) -> None:
    store = stage_runs.make_inputs(tmp_path)
    wanted = params(keep=3)
    assert stage_runs.run(store, wanted, Death(step=5)) == -signal.SIGKILL
    optimizer = store.local_path(f"{PREFIX}/checkpoint-4-1/optimizer.pt")
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 1
    optimizer.write_bytes(data)
    assert stage_runs.run(store, wanted) == EXIT_DONE
    assert attempts(store) == {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 2}
    assert losses(store) == losses(whole(wanted))
    assert any("checkpoint-4-1 is damaged" in note["text"] for note in said(store, "note"))
    assert verify(store, f"{PREFIX}/checkpoint-4-2") == []


@pytest.mark.parametrize("how", ["stop request", "SIGTERM"])
def test_a_stop_drains_and_resume_continues(tmp_path: Path, whole: Any, how: str) -> None:
    wanted = params(steps=40, save_every=1000)
    store = stage_runs.make_inputs(tmp_path)
    process = stage_runs.start(store, wanted, step_s=0.1)
    stage_runs.wait_for(lambda: attempts(store), process)
    if how == "SIGTERM":
        os.kill(process.pid, signal.SIGTERM)
    else:
        store.write_bytes(stop_key(RUN_ID), b"{}")
    process.join(60)
    assert process.exitcode == EXIT_DRAINED
    assert not is_complete(store, f"{PREFIX}/final")
    (saved,) = listed(store, PREFIX)
    assert 0 < saved.step < 40
    assert said(store, "drained")

    store.delete(stop_key(RUN_ID))
    assert stage_runs.run(store, wanted) == EXIT_DONE
    assert attempts(store)[saved.step] == 1 and attempts(store)[saved.step + 1] == 2
    assert losses(store) == losses(whole(wanted))


def test_what_a_restart_would_repeat_is_not_restarted(tmp_path: Path) -> None:
    store = stage_runs.make_inputs(tmp_path)
    impossible = params(lora=dataclasses.replace(LORA, target_modules=["no_such_layer"]))
    assert stage_runs.run(store, impossible) == EXIT_USER_ERROR
    assert said(store, "restarted") == []
    assert "no_such_layer" in said(store, "failed")[0]["cause"] + said(store, "failed")[0]["advice"]


def test_restarts_end_when_nothing_comes_of_them(tmp_path: Path) -> None:
    store = stage_runs.make_inputs(tmp_path)
    deaths = [Death(step=1, rank=0, attempt=attempt) for attempt in range(1, 9)]
    assert stage_runs.run(store, params(), *deaths) == EXIT_FAILED
    assert len(said(store, "restarted")) == 3
    assert (
        "killed by SIGKILL (after 3 restarts without a new checkpoint)" in said(store, "failed")[0]["cause"]
    )


def test_damaged_input_is_refused(tmp_path: Path) -> None:
    store = stage_runs.make_inputs(tmp_path)
    shard = store.local_path("prepared/key/train-00000.arrow")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert stage_runs.run(store, params()) == EXIT_FAILED
    assert "input prepare (prepared/key) is damaged: train-00000.arrow" in said(store, "failed")[0]["cause"]
