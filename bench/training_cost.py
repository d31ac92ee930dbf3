"""What a training step costs: the clock and the options that all systems of bench/train_throughput.py share.

Each system is a script of its own, run by an interpreter that may have other versions of everything:

    python SCRIPT WORK PRECISION STEPS

WORK holds `rows.json` (packed rows: `input_ids`, `labels`, `document_lengths`) and `model-PRECISION`, the
base model in the type that it is held in, with a tokenizer. A script prints one line of JSON, `Clock.result`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 0
LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE = 1e-6


class Clock:
    """CPU and wall seconds of each step, from the end of the step before it."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self, step: int = 0) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def result(self, loss: float) -> dict[str, Any]:
        """`steps`: (CPU seconds, wall seconds) of the second step and those after it."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return {"steps": [[after[i] - before[i] for i in (0, 1)] for before, after in pairs], "loss": loss}


def callback(clock: Clock) -> Any:
    """For trainers made on transformers' Trainer."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    return Callback()


def trainer_options(work: Path, precision: str, steps: int) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments, and of what is made on it."""
    return {
        "output_dir": str(work / f"work-{os.getpid()}"),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "bf16": precision == "bf16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def model_and_lora(work: Path, precision: str) -> tuple[Any, Any]:
    """The base model, and what PEFT is to add."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(work / f"model-{precision}", dtype="auto")
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    return model, lora


def read_rows(work: Path) -> list[dict[str, list[int]]]:
    rows: list[dict[str, list[int]]] = json.loads((work / "rows.json").read_text())
    return rows


def documents(row: dict[str, list[int]]) -> list[dict[str, list[int]]]:
    """A row's documents, one by one: `input_ids` and `labels`."""
    parts, start = [], 0
    for length in row["document_lengths"]:
        parts.append({name: row[name][start : start + length] for name in ("input_ids", "labels")})
        start += length
    return parts


def mean_loss(log_history: list[dict[str, float]]) -> float:
    losses = [row["loss"] for row in log_history if "loss" in row]
    return sum(losses) / len(losses)


def main(run: Callable[[Path, str, int], dict[str, Any]]) -> None:
    work, precision, steps = sys.argv[1:]
    print(json.dumps(run(Path(work), precision, int(steps))))
