"""Small models, prepared splits and tasks for tests of the training loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifacts.contract import IGNORED_LABEL, LoraParams, TrainParams
from artifacts.local import LocalStore
from tests import plan_parts

VOCABULARY = 96
Document = tuple[list[int], list[int]]  # token ids, labels

PARAMS = plan_parts.train_params(
    learning_rate=1e-2,
    schedule="cosine",
    warmup_steps=1,
    weight_decay=0.01,
    micro_batch_size=2,
    world_size=2,
    max_length=48,
    seed=3,
)
LORA = LoraParams(rank=4, alpha=8)


def params(**changes: Any) -> TrainParams:
    return dataclasses.replace(PARAMS, **changes)


def documents(count: int, seed: int = 0) -> list[Document]:
    """Chats of 6 to 24 random tokens, the latter half or less of each learnt."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(random.integers(6, 25))
        ids = random.integers(1, VOCABULARY, length).tolist()
        unlearnt = int(random.integers(length // 2, length - 1))
        made.append((ids, [IGNORED_LABEL] * unlearnt + ids[unlearnt:]))
    return made


def write_split(folder: Path, split: str, rows: list[list[Document]]) -> None:
    """One row a list of documents, as `train.data.shards` lays them out."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "input_ids": [[token for ids, _ in row for token in ids] for row in rows],
        "labels": [[label for _, labels in row for label in labels] for row in rows],
        "document_lengths": [[len(ids) for ids, _ in row] for row in rows],
    }
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in columns])
    with pa.OSFile(str(folder / f"{split}-00000.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.record_batch(columns, schema=schema))


def pack(made: list[Document], max_length: int) -> list[list[Document]]:
    """First fit, in order."""
    rows: list[list[Document]] = []
    for document in made:
        for row in rows:
            if sum(len(ids) for ids, _ in row) + len(document[0]) <= max_length:
                row.append(document)
                break
        else:
            rows.append([document])
    return rows


def write_model(folder: Path, *, tied: bool = True, seed: int = 0, vocabulary: int = VOCABULARY) -> Path:
    """A two-layer Qwen3 with random weights, and no tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def task(root: Path, model: Path, prepared: Path, task_params: TrainParams, **more: Any) -> Any:
    from train.loop import TrainTask

    return TrainTask(
        params=task_params,
        model=model,
        prepared=prepared,
        store=LocalStore(root / "store"),
        prefix="train/key",
        run_id="run",
        work=root / "work",
        **more,
    )


def train_and_read(
    root: Path, model: Path, prepared: Path, task_params: TrainParams, **more: Any
) -> list[dict]:
    """Run in a rank: train, and return the metric rows (all attempts), step by step."""
    from train import loop, metrics

    mine = task(root, model, prepared, task_params, **more)
    loop.train_rank(mine)
    return metrics.merged_from(mine.store, mine.prefix)
