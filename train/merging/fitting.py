"""An adapter's names and matrices as the files of the base have them.

An adapter names the modules of the model as it was in memory. Files may name their tensors without the prefix
of the model around (GPT-2's and Bloom's on the hub), and some architectures keep weights transposed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from train.merging.adapter import Adapter
from train.merging.tensors import StoredTensor
from train.merging.updates import FactorUpdate, LoraUpdate, Update


def fitted(adapter: Adapter, base: Mapping[str, StoredTensor]) -> Adapter:
    """The adapter by the base's names, its matrices turned as the base's are."""
    changed = [*adapter.replacements, *adapter.updates]
    names = dict(zip(changed, names_in(base, changed), strict=True))
    return Adapter(
        {names[name]: tensor for name, tensor in adapter.replacements.items()},
        _turned({names[name]: update for name, update in adapter.updates.items()}, base),
        frozenset(names[name] for name in adapter.optional),
    )


def names_in(base: Mapping[str, StoredTensor], names: Iterable[str]) -> list[str]:
    """The `names` as the base's files have them: without their first part where those lack it."""
    names = list(names)
    left_out = {
        name.partition(".")[0] for name in names if name not in base and name.partition(".")[2] in base
    }
    return [
        rest if first in left_out and name not in base else name
        for name in names
        for first, _, rest in [name.partition(".")]
    ]


def _turned(updates: dict[str, Update], base: Mapping[str, StoredTensor]) -> dict[str, Update]:
    """PEFT finds out layer by layer whether weights are kept as (in, out), whatever the adapter's
    `fan_in_fan_out` says. Here shapes tell; a square one is kept as the others of the model are."""
    fits = {
        name: [turned for turned in (False, True) if _fits(_turn(update, turned), base[name])]
        for name, update in updates.items()
        if name in base and _can_turn(update)
    }
    sure = {ways[0] for ways in fits.values() if len(ways) == 1}
    return {
        name: _turn(update, _way(fits[name], sure, update)) if fits.get(name) else update
        for name, update in updates.items()
    }


def _way(ways: list[bool], sure: set[bool], update: Update) -> bool:
    if len(ways) == 1:
        return ways[0]
    # A head is never turned, also where the blocks are.
    return True in sure if sure else bool(getattr(update, "transposed", False))


def _can_turn(update: Update) -> bool:
    if isinstance(update, LoraUpdate):
        return not update.embedding
    return isinstance(update, FactorUpdate) and not update.bias


def _turn(update: Update, turned: bool) -> Update:
    assert isinstance(update, LoraUpdate | FactorUpdate)
    return dataclasses.replace(update, transposed=turned)


def _fits(update: Update, tensor: StoredTensor) -> bool:
    return len(tensor.shape) == 2 and all(
        size in (0, there) for size, there in zip(update.shape, tensor.shape, strict=True)
    )
