"""What one writes with transformers and PEFT alone: labels to the model, position ids that restart.

Run by bench/train_throughput.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import training_cost


def run(work: Path, precision: str, steps: int) -> dict[str, Any]:
    import torch
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments

    model, lora = training_cost.model_and_lora(work, precision)
    data = [
        {
            "input_ids": torch.tensor(row["input_ids"]),
            "labels": torch.tensor(row["labels"]),
            "position_ids": torch.cat([torch.arange(length) for length in row["document_lengths"]]),
        }
        for row in training_cost.read_rows(work)
    ]
    clock = training_cost.Clock()
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(**training_cost.trainer_options(work, precision, steps)),
        train_dataset=data,
        callbacks=[training_cost.callback(clock)],
    )
    trainer.train()
    return clock.result(training_cost.mean_loss(trainer.state.log_history))


if __name__ == "__main__":
    training_cost.main(run)
