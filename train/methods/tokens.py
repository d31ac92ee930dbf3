"""Tokens that the model must learn: new ones, which the template added to the tokenizer, and those of the
vocabulary whose embeddings the job trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from artifacts.contract import TOKENIZER_FOLDER, TrainParams
from train.stage import StageUserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Tokens:
    """Token -> id: `added` to the tokenizer, and `trained` because the job says so."""

    added: Mapping[str, int] = field(default_factory=dict)
    trained: Mapping[str, int] = field(default_factory=dict)


def read(prepared: Path, params: TrainParams) -> Tokens:
    """What the prepared folder (`statistics.json`, `tokenizer/`) and the job say. Raises StageUserError for a
    token that the tokenizer does not have."""
    statistics = prepared / "statistics.json"
    added = json.loads(statistics.read_bytes()).get("added_tokens", {}) if statistics.is_file() else {}
    named = params.lora.trainable_tokens if params.lora else []
    if not named:
        return Tokens(added)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(prepared / TOKENIZER_FOLDER / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in named}
    if unknown := [token for token, number in ids.items() if number is None]:
        raise StageUserError(
            f"method.trainable_tokens: {unknown[0]!r} is no single token of the tokenizer",
            "name tokens of its vocabulary",
        )
    return Tokens(added, ids)


@torch.no_grad()
def resize(model: PreTrainedModel, added: Mapping[str, int]) -> None:
    """Grow input embedding and output head to hold the `added` ids, and let each of these start as the mean
    of the rows that were there (https://nlp.stanford.edu/~johnhew/vocab-expansion.html)."""
    if not added:
        return
    from peft.utils.integrations import gather_params_ctx

    rows = model.get_input_embeddings().num_embeddings
    if max(added.values()) >= rows:
        model.resize_token_embeddings(max(added.values()) + 1, mean_resizing=False)
    ids = torch.tensor(sorted({*added.values(), *range(rows, max(added.values()) + 1)}))
    modules = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    weights = {id(module.weight): module.weight for module in modules}
    for weight in weights.values():
        with gather_params_ctx([weight], modifier_rank=0):
            others = torch.ones(len(weight), dtype=torch.bool)
            others[ids] = False
            weight[ids] = weight[others].float().mean(0).to(weight.dtype)


def make_room(model: PreTrainedModel, adapter: Path) -> None:
    """Grow the base's embeddings to as many rows as the adapter in that folder needs."""
    needed = rows_needed(model, adapter)
    if needed > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(needed, mean_resizing=False)


def rows_needed(model: PreTrainedModel, adapter: Path) -> int:
    """The highest id of which the adapter trains a row, + 1, or the rows of an embedding that it holds whole;
    0 where it has neither."""
    from safetensors import safe_open

    indices: Any = json.loads((adapter / "adapter_config.json").read_bytes()).get("trainable_token_indices")
    lists = indices.values() if isinstance(indices, dict) else [indices or []]
    single = [index + 1 for numbers in lists for index in numbers]
    embedding = next(name for name, m in model.named_modules() if m is model.get_input_embeddings())
    endings = (f".{embedding}.weight", f".{embedding}.base_layer.weight")
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        whole = [
            file.get_slice(name).get_shape()[0]
            for name in file.keys()  # noqa: SIM118 - no mapping
            if name.endswith(endings)
        ]
    return max(single + whole, default=0)
