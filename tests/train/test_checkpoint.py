"""Which checkpoint is resumed from, which ones stay, and when one exists at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.local import LocalStore
from artifacts.manifest import MARKER, ArtifactWriter, FileEntry, read_marker, verify
from artifacts.store import Store
from train.checkpoint import (
    Checkpoints,
    Choice,
    Name,
    choose,
    expired,
    listed,
    merge_manifests,
    newest,
    remove,
)
from train.stage import StageError, StageUserError

PREFIX = "train/key"
FILES = {
    "adapter_model.safetensors": b"weights",
    "optimizer.pt": b"moments",
    "pytorch_model_fsdp_0/.metadata": b"m",
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: Store, name: Name, *, marked: bool = True) -> None:
    writer = ArtifactWriter(store, f"{PREFIX}/{name}")
    for path, data in FILES.items():
        writer.write_bytes(path, data + str(name).encode())
    if marked:
        writer.commit(step=name.step)


class Trainer:
    """Writes what a rank of a sharded training would."""

    def __init__(self, rank: int = 0, text: str = "") -> None:
        self.rank, self.text = rank, text
        self.best_step = None

    def write_checkpoint(self, folder: Path) -> None:
        (folder / "shards").mkdir(parents=True)
        (folder / f"rng_state_{self.rank}.pth").write_text(f"random {self.text}")
        (folder / "shards" / f"__{self.rank}_0.distcp").write_text(f"shard {self.text}")
        if self.rank == 0:
            (folder / "trainer_state.json").write_text("{}")


# -- choosing --


def test_the_newest_is_chosen_by_step_then_attempt(store: LocalStore) -> None:
    for name in (Name(5, 3), Name(10, 1), Name(10, 2), Name(9, 9)):
        put(store, name)
    put(store, Name(11, 2), marked=False)
    assert choose(store, PREFIX) == Choice(Name(10, 2))
    assert newest(store, PREFIX) == Name(10, 2)


def test_nothing_to_choose(store: LocalStore) -> None:
    assert choose(store, PREFIX) == Choice(None)
    put(store, Name(5, 1), marked=False)
    assert choose(store, PREFIX) == Choice(None)


@pytest.mark.parametrize("harm", ["deleted", "truncated", "flipped", "longer"])
@pytest.mark.parametrize("path", [*FILES, MARKER])
def test_a_harmed_checkpoint_is_never_chosen(store: LocalStore, path: str, harm: str) -> None:
    put(store, Name(4, 1))
    put(store, Name(8, 1))
    file = store.local_path(f"{PREFIX}/checkpoint-8-1/{path}")
    data = file.read_bytes()
    if harm == "deleted":
        file.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes({"truncated": data[:-1], "flipped": flipped, "longer": data + b"\0"}[harm])
    choice = choose(store, PREFIX)
    assert choice.name == Name(4, 1)
    assert all(name == Name(8, 1) and problems for name, problems in choice.damaged.items())


# -- retention --

names = st.builds(Name, st.integers(1, 20), st.integers(1, 3))


@given(st.sets(names, min_size=1), st.integers(1, 5), st.data())
def test_retention_keeps_the_newest_whole_ones(all_names: set[Name], keep: int, data: Any) -> None:
    damaged = data.draw(st.sets(st.sampled_from(sorted(all_names))))
    gone = expired(all_names, keep=keep, damaged=damaged)
    stays = all_names - set(gone)
    whole = sorted(all_names - damaged)
    assert stays == set(whole[-keep:])
    assert gone == sorted(gone)
    best = data.draw(st.sampled_from(sorted(all_names)))
    kept = all_names - set(expired(all_names, keep=keep, damaged=damaged, best_step=best.step))
    of_best = [name for name in whole if name.step == best.step]
    assert kept == stays | set(of_best[-1:])


def test_the_marker_goes_before_the_files(store: LocalStore) -> None:
    put(store, Name(1, 1))
    deleted: list[str] = []
    delete = store.delete
    store.delete = lambda key: (deleted.append(key), delete(key))[1]  # type: ignore[method-assign]
    remove(store, f"{PREFIX}/checkpoint-1-1")
    assert deleted[0] == f"{PREFIX}/checkpoint-1-1/{MARKER}"
    assert listed(store, PREFIX) == {}


def test_another_number_of_ranks(store: LocalStore, tmp_path: Path) -> None:
    writer = ArtifactWriter(store, f"{PREFIX}/{Name(4, 1)}")
    writer.write_bytes("optimizer.pt", b"moments")
    writer.commit(step=4, attempt=1, world_size=2)
    options = {"attempt": 2, "keep": 2, "staging": tmp_path / "staging"}
    assert Checkpoints(store, PREFIX, **options, resizable=True).resume_folder() is not None
    with pytest.raises(StageUserError, match=r"checkpoint-4-1 was saved by 2 workers.*compute.workers: 2"):
        Checkpoints(store, PREFIX, **options, resizable=False).resume_folder()


def test_the_best_one_is_found_or_its_loss_is_told(store: LocalStore, tmp_path: Path) -> None:
    for name in (Name(2, 1), Name(2, 2), Name(4, 2)):
        put(store, name)
    checkpoints = Checkpoints(store, PREFIX, attempt=2, keep=2, staging=tmp_path / "staging")
    assert checkpoints.folder_of(2) == store.local_path(f"{PREFIX}/checkpoint-2-2")
    store.delete(f"{PREFIX}/checkpoint-2-2/optimizer.pt")
    with pytest.raises(StageError, match="the checkpoint of step 2, which has the best weights, is damaged"):
        checkpoints.folder_of(2)
    with pytest.raises(StageError, match="step 3, which has the best weights, is gone"):
        checkpoints.folder_of(3)


def test_saving_keeps_the_newest_and_forgets_the_damaged(store: LocalStore, tmp_path: Path) -> None:
    for name in (Name(1, 1), Name(2, 1), Name(3, 1)):
        put(store, name)
    store.delete(f"{PREFIX}/checkpoint-3-1/optimizer.pt")
    checkpoints = Checkpoints(store, PREFIX, attempt=2, keep=2, staging=tmp_path / "staging")
    assert checkpoints.resume_folder() == store.local_path(f"{PREFIX}/checkpoint-2-1")
    assert Name(3, 1) in listed(store, PREFIX), "evidence stays until there is something better"
    checkpoints.save(Trainer(), 3)
    assert listed(store, PREFIX) == {Name(2, 1): True, Name(3, 2): True}
    assert not (tmp_path / "staging" / "checkpoint-3").exists()


def test_leftovers_of_dead_attempts_are_cleared(store: LocalStore, tmp_path: Path) -> None:
    put(store, Name(2, 1))
    put(store, Name(4, 1), marked=False)
    put(store, Name(4, 2), marked=False)  # of the attempt that is running
    Checkpoints(store, PREFIX, attempt=2, keep=2, staging=tmp_path).resume_folder()
    assert listed(store, PREFIX) == {Name(2, 1): True, Name(4, 2): False}


# -- committing --


def test_ranks_must_not_write_the_same_path() -> None:
    mine, other = FileEntry("model.safetensors", 1, "a" * 64), FileEntry("model.safetensors", 1, "b" * 64)
    assert merge_manifests([[mine], [mine]]) == [mine]
    with pytest.raises(StageError, match=r"model\.safetensors"):
        merge_manifests([[mine], [other]])


def _save(store: LocalStore, staging: Path, step: int, dies: bool) -> list[str]:
    """In a rank: save at `step`; rank 1 ends after putting its files, before it tells."""
    import torch.distributed as dist

    from train import checkpoint

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    checkpoints = Checkpoints(
        store,
        PREFIX,
        attempt=1,
        keep=1,
        staging=staging / str(rank),
        rank=rank,
        world_size=2,
        group=dist.group.WORLD,
    )
    if dies and rank == 1:
        checkpoint.gather = lambda value, group: os._exit(1)
    if dies and rank == 0:
        with pytest.raises(RuntimeError):
            checkpoints.save(Trainer(rank), step)
        return []
    checkpoints.save(Trainer(rank), step)
    dist.barrier()
    return verify(store, f"{PREFIX}/{Name(step, 1)}")


def test_the_marker_lists_the_files_of_all_ranks(ranks: Any, store: LocalStore, tmp_path: Path) -> None:
    assert ranks(2, _save, store, tmp_path / "staging", 5, False) == [[], []]
    manifest = read_marker(store, f"{PREFIX}/checkpoint-5-1")
    assert manifest is not None and manifest.facts == {"step": 5, "attempt": 1, "world_size": 2}
    assert [entry.path for entry in manifest.files] == [
        "rng_state_0.pth",
        "rng_state_1.pth",
        "shards/__0_0.distcp",
        "shards/__1_0.distcp",
        "trainer_state.json",
    ]


def test_a_rank_that_dies_leaves_no_marker(ranks: Any, store: LocalStore, tmp_path: Path) -> None:
    put(store, Name(4, 1))
    with pytest.raises(AssertionError, match="rank 1:\ndied"):
        ranks(2, _save, store, tmp_path / "staging", 5, True)
    assert listed(store, PREFIX) == {Name(4, 1): True, Name(5, 1): False}
    assert store.exists(f"{PREFIX}/checkpoint-5-1/rng_state_1.pth"), (
        "the test means to die after putting files"
    )
