"""TRL's SFTTrainer over rows that are packed already. Run by bench/train_throughput.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import training_cost


def run(work: Path, precision: str, steps: int) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model, lora = training_cost.model_and_lora(work, precision)
    rows = training_cost.read_rows(work)
    data = Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "labels": row["labels"], "seq_lengths": row["document_lengths"]}
            for row in rows
        ]
    )
    clock = training_cost.Clock()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **training_cost.trainer_options(work, precision, steps),
            gradient_checkpointing=False,
            packing=True,
            max_length=len(rows[0]["input_ids"]),
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(work / f"model-{precision}"),
        peft_config=lora,
        callbacks=[training_cost.callback(clock)],
    )
    trainer.train()
    return clock.result(training_cost.mean_loss(trainer.state.log_history))


if __name__ == "__main__":
    training_cost.main(run)
