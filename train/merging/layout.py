"""Which tensors the merged model has, made from what, in which file: known before a single one is read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.merging.adapter import Adapter
from train.merging.fitting import fitted, names_in
from train.merging.tensors import ITEM_SIZE_BYTES, SINGLE_NAME, TORCH_DTYPES, StoredTensor
from train.merging.updates import RowsUpdate, Update
from train.stage import StageUserError

_INPUT_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
#: Names of the number of layers; the second is Bloom's and GPT-2's.
_LAYER_COUNTS = ("num_hidden_layers", "n_layer")
_OUTPUT_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class MergedTensor:
    """A tensor of the merged model: `source` in `dtype`, changed by `update`, which may add rows."""

    name: str
    source: StoredTensor
    dtype: str  # safetensors' name
    update: Update | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if isinstance(self.update, RowsUpdate):
            return (max(self.source.shape[0], self.update.needed), *self.source.shape[1:])
        return self.source.shape

    @property
    def computed(self) -> bool:
        """False where the source's bytes are copied as they are."""
        return self.update is not None or self.dtype != self.source.dtype

    @property
    def size_bytes(self) -> int:
        if self.dtype == self.source.dtype and self.shape == self.source.shape:
            return self.source.size_bytes
        return math.prod(self.shape) * ITEM_SIZE_BYTES[self.dtype]


def with_adapter(base: Mapping[str, StoredTensor], adapter: Adapter) -> tuple[list[MergedTensor], bool]:
    """The base's tensors, changed by the adapter, in the base's order; and whether a tied head was untied.

    A head that shares the input embedding is not stored in the base. Once the adapter changes either of them
    they are two tensors: writing the change into the shared one (as PEFT 0.21 does) would apply it twice. But
    trained rows are shared as the embedding is (`TrainableTokensLayer.tied_adapter`).
    Raises StageUserError for a change that fits no tensor of the base.
    """
    adapter = fitted(adapter, base)
    sources, untied = dict(base), False
    head, embedding = _head_name(base, adapter), _embedding_name(base)
    apart = {name for name in adapter.names if not isinstance(adapter.updates.get(name), RowsUpdate)}
    if head not in base and embedding and apart & {head, embedding}:
        sources[head], untied = base[embedding], True
    merged = [
        _changed(name, source, base.get(name, source).dtype, adapter) for name, source in sources.items()
    ]
    if unmatched := sorted(adapter.names - set(sources)):
        nearest = difflib.get_close_matches(unmatched[0], list(base), 1)
        hint = f" (the nearest is {nearest[0]})" if nearest else ""
        raise StageUserError(
            f"the adapter changes {unmatched[0]}, which the base model does not have{hint}"
            + (f"; so with {len(unmatched) - 1} more" if len(unmatched) > 1 else ""),
            "merge it with the model that it was trained on",
        )
    return merged, untied


def full_weights(
    base: Mapping[str, StoredTensor], trained: Mapping[str, StoredTensor], *, may_add: bool = False
) -> list[MergedTensor]:
    """A whole model was trained: its tensors in the base's order and dtypes; then, if it `may_add` any, those
    of its new layers.

    Raises StageUserError when the two are not the same model.
    """
    heads = {f"{head}.weight" for head in _OUTPUT_HEADS}
    trained = dict(zip(names_in(base, trained), trained.values(), strict=True))
    extra = sorted(set(trained) - set(base) - heads)
    missing = sorted(set(base) - set(trained) - heads)
    if missing or (extra and not may_add):
        name, where = (missing[0], "trained") if not extra or may_add else (extra[0], "base")
        raise StageUserError(f"the {where} model does not have {name}", "train again from this base model")
    merged = []
    for name, source in base.items():
        if name in trained:
            if not _fits(trained[name].shape, source.shape, may_grow=_is_vocabulary(name)):
                raise StageUserError(
                    f"{name} has the shape {trained[name].shape}, {source.shape} in the base model"
                )
            merged.append(MergedTensor(name, trained[name], source.dtype))
    return merged + [MergedTensor(name, trained[name], trained[name].dtype) for name in extra]


def has_more_layers(trained: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether a trained model's configuration counts more layers than the base's."""
    return any(_layers(trained, name) > _layers(base, name) for name in _LAYER_COUNTS)


def _layers(config: Mapping[str, Any], name: str) -> int:
    text = config.get("text_config")
    return int((text if isinstance(text, dict) else config).get(name) or 0)


def _changed(name: str, source: StoredTensor, dtype: str, adapter: Adapter) -> MergedTensor:
    update = adapter.updates.get(name)
    replaced = adapter.replacements.get(name, source)
    for shape in (replaced.shape, update.shape if update else source.shape):
        if not _fits(shape, source.shape, may_grow=_is_vocabulary(name)):
            raise StageUserError(
                f"the adapter's {name} has the shape {shape}, {source.shape} in the base model",
                "merge it with the model that it was trained on",
            )
    merged = MergedTensor(name, replaced, dtype, update)
    if merged.shape != source.shape and not _is_vocabulary(name):
        raise StageUserError(f"the adapter adds rows to {name}, which is no embedding", "train it again")
    if merged.computed and not {replaced.dtype, dtype} <= set(TORCH_DTYPES):
        raise StageUserError(
            f"{name} is stored as {dtype}, an adapter can't be added to it", "use the unquantized base"
        )
    return merged


def _fits(shape: tuple[int, ...], base: tuple[int, ...], *, may_grow: bool) -> bool:
    """Whether a change of that shape (0: any length) goes with the base's; `may_grow`: more rows do."""
    if len(shape) != len(base):
        return False
    rows = shape[0] in (0, base[0]) or (may_grow and shape[0] > base[0])
    return rows and all(size in (0, other) for size, other in zip(shape[1:], base[1:], strict=True))


def _is_vocabulary(name: str) -> bool:
    """Whether the tensor has a row for each token."""
    return name.removesuffix(".weight").endswith((*_INPUT_EMBEDDINGS, *_OUTPUT_HEADS))


def vocabulary(base: Mapping[str, StoredTensor], merged: Sequence[MergedTensor]) -> int | None:
    """How many tokens the merged model has where these are more than the base's. Raises StageUserError where
    its input embedding and output head differ in that."""
    rows = {tensor.name: tensor.shape[0] for tensor in merged if _is_vocabulary(tensor.name)}
    if not any(name in base and count > base[name].shape[0] for name, count in rows.items()):
        return None
    if len({*rows.values()}) > 1:
        told = " and ".join(f"{count} of {name}" for name, count in rows.items())
        raise StageUserError(f"the adapter leaves {told}", "train both for tokens that are new")
    return max(rows.values())


def _head_name(base: Mapping[str, StoredTensor], adapter: Adapter) -> str:
    known = [f"{head}.weight" for head in _OUTPUT_HEADS]
    return next((name for name in known if name in base or name in adapter.names), known[0])


def _embedding_name(base: Mapping[str, StoredTensor]) -> str | None:
    return next((name for name in base if name.removesuffix(".weight").endswith(_INPUT_EMBEDDINGS)), None)


def embedding_rows(tensors: Mapping[str, StoredTensor]) -> int:
    """How many tokens the model knows. Raises StageUserError where it has no embedding of a known name."""
    name = _embedding_name(tensors)
    if name is None:
        raise StageUserError("the model has no token embedding of a known name", "leave merge out of `after`")
    return tensors[name].shape[0]


def shards(tensors: Sequence[MergedTensor], max_size_bytes: int) -> dict[str, list[MergedTensor]]:
    """File name -> its tensors. Filled in order up to `max_size_bytes`; a larger tensor gets its own file.

    Within a file wider dtypes come first, so that each tensor lies at a multiple of its item size.
    """
    groups: list[list[MergedTensor]] = []
    filled = 0
    for tensor in tensors:
        if not groups or filled + tensor.size_bytes > max_size_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.size_bytes
    if len(groups) == 1:
        names = [SINGLE_NAME]
    else:
        names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    return {
        name: sorted(group, key=lambda tensor: (-_item_size_bytes(tensor), tensor.name))
        for name, group in zip(names, groups, strict=True)
    }


def _item_size_bytes(tensor: MergedTensor) -> int:
    count = math.prod(tensor.shape)
    return tensor.size_bytes // count if count else 0


def index(files: Mapping[str, Sequence[MergedTensor]]) -> dict[str, Any]:
    """What `model.safetensors.index.json` says."""
    weight_map = {tensor.name: name for name, group in files.items() for tensor in group}
    total = sum(tensor.size_bytes for group in files.values() for tensor in group)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def merged_config(config: dict[str, Any], *, untied: bool, vocabulary: int | None) -> dict[str, Any]:
    """The model's config for an output head of its own, and for more tokens."""
    changes: dict[str, Any] = {"tie_word_embeddings": False} if untied else {}
    if vocabulary is not None:
        changes["vocab_size"] = vocabulary
    text = config.get("text_config")
    if not isinstance(text, dict):
        return config | changes
    outer = {name: value for name, value in changes.items() if name in config or name != "vocab_size"}
    return config | outer | {"text_config": text | changes}
