"""Axolotl's own training: its configuration, model loader, multipack sampler, collator and trainer.

The documents come as a pre-tokenized data set and are packed by its multipack sampler, in their order
(`sample_packing_sequentially`), which makes the rows of the other systems. Of its LoRA kernels, which it
takes by default, those that a CPU can run are on.

Run by bench/train_throughput.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import training_cost


def run(work: Path, precision: str, steps: int) -> dict[str, Any]:
    os.environ |= {"ACCELERATE_USE_CPU": "true", "AXOLOTL_DO_NOT_TRACK": "1"}
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import setup_model_and_trainer
    from axolotl.utils.dict import DictDefault

    rows = training_cost.read_rows(work)
    data = work / "axolotl.jsonl"
    with data.open("w") as file:
        for document in (document for row in rows for document in training_cost.documents(row)):
            document["attention_mask"] = [1] * len(document["input_ids"])
            file.write(json.dumps(document) + "\n")
    folder = work / f"work-{os.getpid()}"
    cfg = load_cfg(
        DictDefault(
            {
                "base_model": str(work / f"model-{precision}"),
                "datasets": [{"path": str(data), "ds_type": "json", "type": None}],
                "dataset_prepared_path": str(folder / "prepared"),
                "shuffle_merged_datasets": False,
                "sequence_len": len(rows[0]["input_ids"]),
                "sample_packing": True,
                "sample_packing_sequentially": True,
                "curriculum_sampling": True,
                "pad_to_sequence_len": True,
                "attn_implementation": "sdpa",
                "adapter": "lora",
                "lora_r": training_cost.LORA_RANK,
                "lora_alpha": training_cost.LORA_ALPHA,
                "lora_target_linear": True,
                "lora_qkv_kernel": True,
                "lora_o_kernel": True,
                "lora_mlp_kernel": False,  # Triton's: it needs a GPU
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "max_steps": steps,
                "learning_rate": training_cost.LEARNING_RATE,
                "lr_scheduler": "constant",
                "max_grad_norm": 1.0,
                "optimizer": "adamw_torch_fused",
                "bf16": precision == "bf16",
                "gradient_checkpointing": False,
                "logging_steps": 1,
                "save_strategy": "no",
                "output_dir": str(folder),
            }
        )
    )
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg))
    clock = training_cost.Clock()
    trainer.add_callback(training_cost.callback(clock))
    trainer.train()
    return clock.result(training_cost.mean_loss(trainer.state.log_history))


if __name__ == "__main__":
    training_cost.main(run)
