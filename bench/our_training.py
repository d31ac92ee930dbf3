"""Our trainer over a prepared folder. Run by bench/train_throughput.py.

    python bench/our_training.py WORK PRECISION STEPS [--prepared FOLDER] [--micro-batch-size N]

As the peers' scripts (`training_cost`); beside their result `tokens`, of each step but the first, and
`epoch_tokens`, of all data: learnt ones, all, and all with padding.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).resolve().parents[1])]

import training_cost


def run(work: Path, precision: str, steps: int, prepared: Path, micro_batch_size: int) -> dict[str, Any]:
    from artifacts.contract import LoraParams, TrainParams
    from artifacts.local import LocalStore
    from train import loop, metrics

    params = TrainParams(
        method="lora",
        lora=LoraParams(rank=training_cost.LORA_RANK, alpha=training_cost.LORA_ALPHA),
        epochs=None,
        steps=steps,
        learning_rate=training_cost.LEARNING_RATE,
        schedule="constant",
        warmup_steps=0,
        warmup_share=None,
        weight_decay=0.0,
        max_grad_norm=1.0,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=1,
        world_size=1,
        max_length=1024,
        precision=precision,  # type: ignore[arg-type]
        gradient_checkpointing=False,
        seed=training_cost.SEED,
        evaluate_every=None,
        save_every=None,
        log_every_steps=1,
        keep=1,
        strategy="single",
        offload="none",
    )
    clock, store = training_cost.Clock(), LocalStore(work / f"store-{os.getpid()}")
    task = loop.TrainTask(
        params=params,
        model=work / f"model-{precision}",
        prepared=prepared,
        store=store,
        prefix="train/bench",
        run_id="bench",
        work=work / f"work-{os.getpid()}",
        on_step=clock.mark,
    )
    loop.train_rank(task)
    result = clock.result(training_cost.mean_loss(metrics.merged_from(store, task.prefix)))
    tokens = epoch_tokens(prepared, micro_batch_size)
    whole = [sum(column) for column in zip(*tokens, strict=True)]
    return result | {"tokens": tokens[1:steps], "epoch_tokens": whole}


def epoch_tokens(prepared: Path, micro_batch_size: int) -> list[tuple[int, int, int]]:
    """(learnt tokens, tokens, tokens with padding) of each step of the first epoch."""
    from train.data.collate import Collator, Rows
    from train.data.order import RankBatches
    from train.data.reader import PreparedSplit

    rows, collate = Rows(PreparedSplit(prepared, "train")), Collator()
    epoch = RankBatches(len(rows), micro_batch_size, 1, 0, seed=training_cost.SEED)
    batches = (collate([rows[index] for index in indices]) for indices in epoch)
    return [
        (int((batch["targets"] >= 0).sum()), batch["real_tokens"], batch["targets"].numel())
        for batch in batches
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("precision")
    parser.add_argument("steps", type=int)
    parser.add_argument("--prepared", type=Path, help="default: WORK/prepared")
    parser.add_argument("--micro-batch-size", type=int, default=1)
    options = parser.parse_args()
    prepared = options.prepared or options.work / "prepared"
    print(json.dumps(run(options.work, options.precision, options.steps, prepared, options.micro_batch_size)))
