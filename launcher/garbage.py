"""What no run refers to, and what writes that a kill cut off have left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from artifacts.contract import StageKind
from artifacts.manifest import MARKER
from artifacts.store import Store, UnfinishedWrite
from launcher.record import RUNS, references_key

#: No write takes longer.
_UNFINISHED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """An artifact (`<kind>/<key>`) or an unfinished write, by its path in the store."""

    path: str
    size_bytes: int  # in the store; files used in place are not ours
    unfinished: UnfinishedWrite | None = None


def find(store: Store) -> list[Garbage]:
    """What `collect` may remove: artifacts that no run refers to, then litter of writes."""
    kept = set(_references(store))
    sizes: dict[str, int] = {}
    for folder in sorted({kind.folder for kind in StageKind}):
        for info in store.list(folder):
            prefix = "/".join(info.key.split("/")[:2])
            if prefix not in kept:
                sizes[prefix] = sizes.get(prefix, 0) + info.size_bytes
    found = [Garbage(path=prefix, size_bytes=size) for prefix, size in sizes.items()]
    return [*found, *_unfinished(store)]


def collect(store: Store, found: Iterable[Garbage]) -> None:
    """Remove. Markers go before the files they list, so that no artifact is ever seen that is not whole."""
    for item in found:
        if item.unfinished is not None:
            store.discard(item.unfinished)
            continue
        keys = [info.key for info in store.list(item.path)]
        markers = {key for key in keys if key.endswith(f"/{MARKER}")}
        store.delete_many(sorted(markers))
        store.delete_many(key for key in keys if key not in markers)


def _references(store: Store) -> Iterator[str]:
    for info in list(store.list(RUNS)):
        if info.key == references_key(info.key.split("/")[1]):
            yield from json.loads(store.read_bytes(info.key))


def _unfinished(store: Store) -> Iterator[Garbage]:
    for write in store.unfinished(_UNFINISHED_AFTER_S):
        yield Garbage(path=write.name, size_bytes=write.size_bytes, unfinished=write)
