"""Checkpoints of a training: `<train prefix>/checkpoint-<step>-<attempt>/`, artifacts with their markers.

A checkpoint exists once its marker does. transformers' Trainer writes its own layout into a staging folder
per rank; each rank then hashes and puts its own files, the ranks' manifests are gathered, and rank 0, now
knowing that all are done, writes the marker. A rank that dies leaves no marker. On the way back rank 0
chooses the newest checkpoint of which every byte verifies and tells the others.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.manifest import MARKER, ArtifactWriter, FileEntry, Manifest, local_folder, verify, write_marker
from artifacts.store import Store
from train.stage import StageError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_NAME = re.compile(r"checkpoint-(\d+)-(\d+)")


@dataclass(frozen=True, order=True)
class Name:
    """Orders by age: a later step is newer; of the same step, the later attempt's."""

    step: int
    attempt: int

    def __str__(self) -> str:
        return f"checkpoint-{self.step}-{self.attempt}"


def listed(store: Store, train_prefix: str) -> dict[Name, bool]:
    """Every checkpoint folder of the training; True where it has a marker."""
    found: dict[Name, bool] = {}
    for info in store.list(train_prefix):
        folder, _, path = info.key.removeprefix(f"{train_prefix}/").partition("/")
        if match := _NAME.fullmatch(folder):
            name = Name(int(match[1]), int(match[2]))
            found[name] = found.get(name, False) or path == MARKER
    return found


@dataclass(frozen=True)
class Choice:
    """Where to resume: `name` is None at the beginning. `damaged`: newer ones that don't verify, and why."""

    name: Name | None
    damaged: dict[Name, list[str]] = field(default_factory=dict)


def choose(store: Store, train_prefix: str) -> Choice:
    """The newest checkpoint of which every byte is as its marker says."""
    damaged: dict[Name, list[str]] = {}
    for name in sorted(
        (name for name, marked in listed(store, train_prefix).items() if marked), reverse=True
    ):
        problems = verify(store, f"{train_prefix}/{name}")
        if not problems:
            return Choice(name, damaged)
        damaged[name] = problems
    return Choice(None, damaged)


def expired(names: Iterable[Name], *, keep: int, damaged: Collection[Name]) -> list[Name]:
    """What goes once a new checkpoint is committed: the damaged, and all but the newest `keep` of the others.

    The newest of `names` that isn't damaged always stays. Oldest first.
    """
    whole = sorted(set(names) - set(damaged), reverse=True)
    return sorted({*damaged, *whole[max(keep, 1) :]} & set(names))


def remove(store: Store, prefix: str) -> None:
    """Delete a checkpoint: its marker first, so that it is gone before any of its files is."""
    store.delete(f"{prefix}/{MARKER}")
    for info in list(store.list(prefix)):
        store.delete(info.key)


def merge_manifests(parts: Iterable[Iterable[FileEntry]]) -> list[FileEntry]:
    """The files of all ranks. Raises StageError where two ranks wrote different files under one path."""
    files: dict[str, FileEntry] = {}
    for entry in (entry for part in parts for entry in part):
        if files.setdefault(entry.path, entry) != entry:
            raise StageError(f"two ranks wrote different files as {entry.path} of a checkpoint")
    return sorted(files.values())


class Checkpoints:
    """One rank's hand in the training's checkpoints. Every rank calls each method, in the same order.

    `group` is a gloo group of all ranks, None for a single rank. `staging` is this rank's own folder (the
    Trainer's `output_dir`), so that whatever lies in it was written by this rank.
    """

    def __init__(
        self,
        store: Store,
        train_prefix: str,
        *,
        attempt: int,
        keep: int,
        staging: Path,
        rank: int = 0,
        world_size: int = 1,
        group: ProcessGroup | None = None,
        on_note: Callable[[str], None] = lambda text: None,
        on_commit: Callable[[int, str], None] = lambda step, prefix: None,
    ) -> None:
        self.store, self.train_prefix, self.attempt, self.keep = store, train_prefix, attempt, keep
        self.staging, self.rank, self.world_size, self.group = staging, rank, world_size, group
        self._on_note, self._on_commit = on_note, on_commit
        self._damaged: dict[Name, list[str]] = {}
        self._committed: Name | None = None

    def resume_folder(self) -> Path | None:
        """The folder of the checkpoint to continue from, None at the beginning.

        Clears what dead attempts left. Raises ObjectMissingError.
        """
        choice = self._choose() if self.rank == 0 else None
        choice = self._broadcast(choice)
        if choice.name is None:
            return None
        return local_folder(self.store, f"{self.train_prefix}/{choice.name}")

    def _choose(self) -> Choice:
        choice = choose(self.store, self.train_prefix)
        self._damaged = choice.damaged
        for name, problems in choice.damaged.items():
            self._on_note(f"{name} is damaged and not used: {problems[0]}")
        self.clear_unfinished()
        return choice

    def clear_unfinished(self) -> None:
        """Delete what earlier attempts left without a marker."""
        for name, marked in listed(self.store, self.train_prefix).items():
            if not marked and name.attempt < self.attempt:
                remove(self.store, f"{self.train_prefix}/{name}")

    def commit(self, step: int, **facts: Any) -> None:
        """Put every rank's `<staging>/checkpoint-<step>` to the store as one checkpoint; old ones then go.

        When it returns on rank 0 the marker is written. The staged files are taken away.
        """
        name = Name(step, self.attempt)
        staged = self.staging / f"checkpoint-{step}"
        if name == self._committed:  # a save was asked for twice at one step
            shutil.rmtree(staged, ignore_errors=True)
            return
        prefix = f"{self.train_prefix}/{name}"
        writer = ArtifactWriter(self.store, prefix)
        if staged.is_dir():
            writer.add_folder(staged, move=True)
            shutil.rmtree(staged)
        parts = self._gather(list(writer.entries.values()))
        if parts is not None:
            facts = {"step": step, "attempt": self.attempt, "world_size": self.world_size, **facts}
            write_marker(self.store, prefix, Manifest(files=merge_manifests(parts), facts=facts))
            self._on_commit(step, prefix)
            self._retire()
        self._committed = name

    def _retire(self) -> None:
        names = [name for name, marked in listed(self.store, self.train_prefix).items() if marked]
        for name in expired(names, keep=self.keep, damaged=self._damaged):
            remove(self.store, f"{self.train_prefix}/{name}")
        self._damaged = {}

    def _broadcast(self, value: Any) -> Any:
        if self.group is None:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def _gather(self, value: Any) -> list[Any] | None:
        """Every rank's value on rank 0, None elsewhere."""
        if self.group is None:
            return [value]
        import torch.distributed as dist

        values = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values
