"""What bench/train_throughput.py trains: a 60M-parameter Llama, packed rows, and short chat data."""

from __future__ import annotations

import json
import random
from pathlib import Path

from training_cost import SEED

PRECISIONS = ("fp32", "bf16")
DOCUMENTS = (180, 140, 260, 120, 200, 124)  # tokens; one row of 1024
SUPERVISED_SHARE = 0.35
VOCABULARY = 32_000
CHAT_ROW = 1024  # tokens of a packed row
#: Words of a question and of its answer, lognormal: the median, and the deviation of the logarithm.
QUESTION_WORDS, ANSWER_WORDS = (14, 0.7), (35, 0.9)


def supervised_per_row() -> int:
    return sum(int(length * SUPERVISED_SHARE) for length in DOCUMENTS)


def make_rows(count: int) -> list[dict[str, list[int]]]:
    import numpy as np

    chance = np.random.default_rng(SEED)
    rows = []
    for _ in range(count):
        ids, labels = [], []
        for length in DOCUMENTS:
            tokens = chance.integers(1, VOCABULARY, length).tolist()
            learnt = int(length * SUPERVISED_SHARE)
            ids += tokens
            labels += [-100] * (length - learnt) + tokens[length - learnt :]
        rows.append({"input_ids": ids, "labels": labels, "document_lengths": list(DOCUMENTS)})
    return rows


def write_rows(work: Path, count: int) -> None:
    """`rows.json` for the peers, and `prepared` as our prepare stage leaves it."""
    import pyarrow as pa

    rows = make_rows(count)
    (work / "rows.json").write_text(json.dumps(rows))
    (work / "prepared").mkdir()
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in rows[0]])
    path = str(work / "prepared" / "train-00000.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def make_models(work: Path) -> None:
    """`model-PRECISION`, the frozen base in the type that it is held in, with random weights."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    for precision, dtype in zip(PRECISIONS, (torch.float32, torch.bfloat16), strict=True):
        model.to(dtype).save_pretrained(work / f"model-{precision}")
        tokenizer.save_pretrained(work / f"model-{precision}")


def make_chat(work: Path, records: int) -> dict[str, dict[str, float]]:
    """Short chat data as our prepare stage leaves it: `packed/prepared/key`, and `unpacked/prepared/key`, one
    conversation a row. Returns the statistics of both."""
    import train.model
    import train.prepare
    from artifacts.contract import ModelParams, PrepareParams, StageKind, TwinParams
    from artifacts.local import LocalStore
    from tests.train.stage_inputs import put_data, stage_context

    statistics = {}
    twin = ModelParams(source="twin", twin=TwinParams(hidden_size=32, vocabulary_size=4000))
    for name in ("packed", "unpacked"):
        folder = work / name
        store = LocalStore(folder)
        put_data(store, {"train": _conversations(records)})
        train.model.run(stage_context(store, StageKind.MODEL, folder / "work-model", model=twin))
        params = PrepareParams(max_length=CHAT_ROW, packing=name == "packed")
        train.prepare.run(stage_context(store, StageKind.PREPARE, folder / "work", prepare=params))
        report = json.loads((folder / "prepared/key/statistics.json").read_text())
        statistics[name] = report["splits"]["train"]
    return statistics


def _conversations(count: int) -> list[list[dict[str, str]]]:
    chance = random.Random(SEED)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in ("a", "e", "i", "o", "u")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(2000)]

    def text(median: float, deviation: float) -> str:
        length = round(median * chance.lognormvariate(0, deviation))
        return " ".join(chance.choices(words, k=max(1, length)))

    return [
        [
            {"role": "user", "content": text(*QUESTION_WORDS)},
            {"role": "assistant", "content": text(*ANSWER_WORDS)},
        ]
        for _ in range(count)
    ]
