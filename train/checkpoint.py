"""Checkpoints of a training: `<train prefix>/checkpoint-<step>-<attempt>/`, artifacts with their markers.

A checkpoint exists once its marker does. transformers' Trainer writes its own layout into a staging folder
per rank; each rank then hashes and puts its own files, the ranks' manifests are gathered, and rank 0, now
knowing that all are done, writes the marker. A rank that dies leaves no marker. On the way back rank 0
chooses the newest checkpoint of which every byte verifies and tells the others.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from artifacts.download import DamagedError, Progress
from artifacts.events import EventKind, Events
from artifacts.manifest import (
    MARKER,
    ArtifactWriter,
    FileEntry,
    Manifest,
    local_folder,
    read_marker,
    verify,
    write_marker,
)
from artifacts.store import ObjectMissingError, Store
from train.attempts import check_current
from train.stage import StageError, StageUserError, fetch_progress

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")

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


def newest(store: Store, train_prefix: str) -> Name | None:
    """The newest committed checkpoint, unread."""
    return max((name for name, marked in listed(store, train_prefix).items() if marked), default=None)


@dataclass(frozen=True)
class Choice:
    """Where to resume: `name` is None at the beginning. `damaged`: newer ones that don't verify, and why."""

    name: Name | None
    damaged: dict[Name, list[str]] = field(default_factory=dict)


def choose(store: Store, train_prefix: str, progress: Progress | None = None) -> Choice:
    """The newest checkpoint of which every byte is as its marker says."""
    damaged: dict[Name, list[str]] = {}
    for name in sorted(
        (name for name, marked in listed(store, train_prefix).items() if marked), reverse=True
    ):
        problems = read_through(store, f"{train_prefix}/{name}", progress)
        if not problems:
            return Choice(name, damaged)
        damaged[name] = problems
    return Choice(None, damaged)


def read_through(store: Store, prefix: str, progress: Progress | None = None) -> list[str]:
    """Every byte of a checkpoint, once: where it lies, or into the node cache, from which it is then loaded.
    What is wrong with it, as `artifacts.manifest.verify`."""
    if store.local_path(prefix) is not None:
        return verify(store, prefix)
    try:
        local_folder(store, prefix, once=True, progress=progress)
    except (DamagedError, ObjectMissingError) as error:
        return [str(error)]
    return []


def expired(
    names: Iterable[Name], *, keep: int, damaged: Collection[Name], best_step: int | None = None
) -> list[Name]:
    """What goes once a new checkpoint is committed: the damaged, and all but the newest `keep` of the others
    and the newest of `best_step`.

    The newest of `names` that isn't damaged always stays. Oldest first.
    """
    whole = sorted(set(names) - set(damaged), reverse=True)
    best = next((name for name in whole if name.step == best_step), None)
    return sorted({*damaged, *whole[max(keep, 1) :]} & set(names) - {best})


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

    `group` is a gloo group of all ranks, None for a single rank. `staging` is a folder of this rank alone, so
    that whatever is written there is this rank's to put to the store. `events`: rank 0's. `resizable`: any
    number of ranks can go on from what these save.
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
        events: Events | None = None,
        resizable: bool = True,
    ) -> None:
        self.resizable = resizable
        self.store, self.train_prefix, self.attempt, self.keep = store, train_prefix, attempt, keep
        self.staging, self.rank, self.world_size, self.group = staging, rank, world_size, group
        self.events = events
        self._damaged: dict[Name, list[str]] = {}

    def resume_folder(self) -> Path | None:
        """The folder of the checkpoint to continue from, None at the beginning.

        Clears what dead attempts left. Raises ObjectMissingError, and StageUserError where another number of
        ranks saved it and this one can't go on from there.
        """
        name = broadcast(self._choose() if self.rank == 0 else None, self.group)
        if name is None:
            return None
        self._check_world_size(name)
        return local_folder(self.store, f"{self.train_prefix}/{name}", once=True)

    def folder_of(self, step: int) -> Path:
        """The folder of the newest checkpoint of `step`. Raises StageError where it is damaged or gone."""
        name, problem = broadcast(self._find(step) if self.rank == 0 else (None, ""), self.group)
        if name is None:
            raise StageError(
                f"the checkpoint of step {step}, which has the best weights, {problem}",
                "remove the later checkpoints and resume, or set training.best_model: false",
            )
        return local_folder(self.store, f"{self.train_prefix}/{name}", once=True)

    def _find(self, step: int) -> tuple[Name | None, str]:
        """The newest checkpoint of `step`, or what is wrong with it."""
        marked = [name for name, marked in listed(self.store, self.train_prefix).items() if marked]
        name = max((name for name in marked if name.step == step), default=None)
        if name is None:
            return None, "is gone"
        problems = read_through(self.store, f"{self.train_prefix}/{name}", fetch_progress(self.events))
        return (None, f"is damaged: {problems[0]}") if problems else (name, "")

    def _check_world_size(self, name: Name) -> None:
        marker = read_marker(self.store, f"{self.train_prefix}/{name}")
        saved_by = marker.facts.get("world_size", self.world_size) if marker else self.world_size
        if saved_by != self.world_size and not self.resizable:
            raise StageUserError(
                f"{name} was saved by {saved_by} workers, whose number ZeRO's state goes with, and there are "
                f"{self.world_size}",
                f"set compute.workers: {saved_by}; or start anew with --fresh, under ddp or fsdp to be free",
            )

    def _choose(self) -> Name | None:
        choice = choose(self.store, self.train_prefix, fetch_progress(self.events))
        self._damaged = choice.damaged
        for name, problems in choice.damaged.items():
            self._say("note", text=f"{name} is damaged and not used: {problems[0]}")
        if choice.name is not None:
            self._say("note", text=f"continues from {choice.name}")
        self.clear_unfinished()
        return choice.name

    def clear_unfinished(self) -> None:
        """Delete what earlier attempts left without a marker."""
        for name, marked in listed(self.store, self.train_prefix).items():
            if not marked and name.attempt < self.attempt:
                remove(self.store, f"{self.train_prefix}/{name}")

    def save(self, trainer: Any, step: int) -> None:
        """Save what `trainer.write_checkpoint(folder)` writes on each rank; then old checkpoints go.

        When it returns on rank 0 the marker is written.
        """
        prefix = f"{self.train_prefix}/{Name(step, self.attempt)}"
        staged = self.staging / f"checkpoint-{step}"
        shutil.rmtree(staged, ignore_errors=True)
        trainer.write_checkpoint(staged)
        writer = ArtifactWriter(self.store, prefix)
        writer.add_folder(staged, move=True)
        shutil.rmtree(staged)
        parts = gather(list(writer.entries.values()), self.group)
        if parts is not None:
            check_current(self.store, self.train_prefix, self.attempt)
            facts = {"step": step, "attempt": self.attempt, "world_size": self.world_size}
            write_marker(self.store, prefix, Manifest(files=merge_manifests(parts), facts=facts))
            self._say("checkpoint", step=step, prefix=prefix)
            self._retire(trainer.best_step)

    def _retire(self, best_step: int | None) -> None:
        names = [name for name, marked in listed(self.store, self.train_prefix).items() if marked]
        for name in expired(names, keep=self.keep, damaged=self._damaged, best_step=best_step):
            remove(self.store, f"{self.train_prefix}/{name}")
        self._damaged = {}

    def _say(self, kind: EventKind, **facts: Any) -> None:
        if self.events is not None:
            self.events.say(kind, **facts)


def broadcast(value: T, group: ProcessGroup | None) -> T:
    """Rank 0's `value`, on every rank."""
    if group is None:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def gather(value: T, group: ProcessGroup | None) -> list[T] | None:
    """Every rank's `value` on rank 0, None elsewhere."""
    if group is None:
        return [value]
    import torch.distributed as dist

    values: list[Any] | None = [None] * dist.get_world_size(group) if dist.get_rank(group) == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return values
