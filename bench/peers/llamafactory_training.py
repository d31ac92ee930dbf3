"""LLaMA-Factory's own training (`run_exp`, what `llamafactory-cli train` calls) with `neat_packing`.

Its model loading, collator (a block-diagonal 4-dimensional mask) and trainer (`CustomSeq2SeqTrainer`) are
used as they are. The rows come as its `tokenized_path`, in the form in which its packing writes them. That
pads each row to the cut-off length and one; here rows are full, to spare it padding.

Run by bench/train_throughput.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import training_cost


def packed(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """A row as LLaMA-Factory's PackedSupervisedDatasetProcessor would leave it."""
    lengths = row["document_lengths"]
    return {
        "input_ids": row["input_ids"],
        "labels": row["labels"],
        "attention_mask": [number for number, length in enumerate(lengths, 1) for _ in range(length)],
        "position_ids": [position for length in lengths for position in range(length)],
    }


def run(work: Path, precision: str, steps: int) -> dict[str, Any]:
    from datasets import Dataset, DatasetDict
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    tokenized = work / "llamafactory"
    if not tokenized.exists():
        rows = [packed(row) for row in training_cost.read_rows(work)]
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tokenized)
    history: list[dict[str, float]] = []

    class History(TrainerCallback):
        def on_log(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            history[:] = state.log_history

    clock = training_cost.Clock()
    arguments = training_cost.trainer_options(work, precision, steps) | {
        "model_name_or_path": str(work / f"model-{precision}"),
        "stage": "sft",
        "do_train": True,
        "template": "empty",
        "dataset": "rows",  # it wants a name, and reads `tokenized_path` alone
        "tokenized_path": str(tokenized),
        "cutoff_len": len(training_cost.read_rows(work)[0]["input_ids"]),
        "neat_packing": True,
        "finetuning_type": "lora",
        "lora_rank": training_cost.LORA_RANK,
        "lora_alpha": training_cost.LORA_ALPHA,
        "lora_target": "all",
        "disable_gradient_checkpointing": True,
    }
    run_exp(arguments, callbacks=[training_cost.callback(clock), History()])
    return clock.result(training_cost.mean_loss(history))


if __name__ == "__main__":
    training_cost.main(run)
