"""The peer of `bench/launch_overhead.py`: the quickstart's training as one would write it by hand.

A plain transformers Trainer with PEFT over tokens that are already prepared. Writes the Unix time at which
the first optimizer step was done.

    torchrun --standalone --nproc-per-node 2 bench/peers/bare_training.py MODEL PREPARED PLAN OUT
    python bench/peers/bare_training.py --ray 2 MODEL PREPARED PLAN OUT
"""

import argparse
import json
import time
from pathlib import Path

import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments


class FirstStep(TrainerCallback):
    def __init__(self, out):
        self.out = Path(out)

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 1 and state.is_world_process_zero:
            self.out.write_text(str(time.time()))


def read_rows(prepared):
    rows = []
    for path in sorted(Path(prepared).glob("train-*.arrow")):
        rows += pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
    for row in rows:
        row["position_ids"] = [
            position for length in row.pop("document_lengths") for position in range(length)
        ]
    return rows


def collate(rows):
    length = max(len(row["input_ids"]) for row in rows)
    padding = {"input_ids": 0, "labels": -100, "position_ids": 0}
    return {
        name: torch.tensor([row[name] + [fill] * (length - len(row[name])) for row in rows])
        for name, fill in padding.items()
    }


def train(config):
    params = config["params"]
    model = AutoModelForCausalLM.from_pretrained(config["model"])
    lora = params["lora"]
    model = get_peft_model(
        model,
        LoraConfig(
            r=lora["rank"],
            lora_alpha=lora["alpha"],
            target_modules=lora["target_modules"],
            task_type="CAUSAL_LM",
        ),
    )
    model.config.use_cache = False
    arguments = TrainingArguments(
        output_dir=config["out"] + ".trainer",
        max_steps=params["steps"],
        learning_rate=params["learning_rate"],
        per_device_train_batch_size=params["micro_batch_size"],
        gradient_accumulation_steps=params["gradient_accumulation_steps"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=read_rows(config["prepared"]),
        data_collator=collate,
        callbacks=[FirstStep(config["out"])],
    ).train()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ray", type=int, metavar="WORKERS")
    parser.add_argument("model")
    parser.add_argument("prepared")
    parser.add_argument("plan")
    parser.add_argument("out")
    options = parser.parse_args()
    stages = json.loads(Path(options.plan).read_text())["stages"]
    params = next(stage["params"] for stage in stages if stage["kind"] == "train")
    config = {"model": options.model, "prepared": options.prepared, "params": params, "out": options.out}
    if options.ray is None:
        train(config)
        return
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=options.ray),
        run_config=RunConfig(storage_path=options.out + ".ray"),
    ).fit()


if __name__ == "__main__":
    main()
