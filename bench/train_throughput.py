"""Supervised tokens per CPU second: ours, a plain transformers Trainer, and TRL's SFTTrainer.

    python bench/train_throughput.py [--steps 10] [--rounds 2] [--systems ours,plain,trl]

All three train the same LoRA (rank 16 on all linear layers) on the same 60M-parameter Llama with random
weights, over the same packed rows of 1024 tokens (35 % of them learnt), one row a step, one process, gradient
checkpointing off. In bf16 the frozen base is held in bfloat16, with autocast. CPU seconds are counted, and
per system its fastest step of all rounds, so that neighbours on the machine matter less.

TRL is in no lock of ours: it is installed (`requirements/bench.in`) into an environment of its own, on top of
this one's packages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {"ours": "slipway", "plain": "transformers Trainer", "trl": "TRL SFTTrainer"}
PRECISIONS = ("fp32", "bf16")
WARMUP_STEPS = 2
DOCUMENTS = (180, 140, 260, 120, 200, 124)  # tokens; one row of 1024
SUPERVISED_SHARE = 0.35
VOCABULARY = 32_000
SEED = 0


def supervised_per_row() -> int:
    return sum(int(length * SUPERVISED_SHARE) for length in DOCUMENTS)


def make_rows(count: int) -> list[dict[str, list[int]]]:
    import numpy as np

    random = np.random.default_rng(SEED)
    rows = []
    for _ in range(count):
        ids, labels = [], []
        for length in DOCUMENTS:
            tokens = random.integers(1, VOCABULARY, length).tolist()
            learnt = int(length * SUPERVISED_SHARE)
            ids += tokens
            labels += [-100] * (length - learnt) + tokens[length - learnt :]
        rows.append({"input_ids": ids, "labels": labels, "document_lengths": list(DOCUMENTS)})
    return rows


def make_model(folder: Path) -> None:
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
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


class Clock:
    """CPU and wall seconds of each step after the warm-up."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self, step: int = 0) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def result(self, loss: float) -> dict[str, float]:
        """Of the fastest step: all steps do the same work, and neighbours only ever slow one down."""
        steps = list(pairwise(self.marks[WARMUP_STEPS - 1 :]))
        cpu_s, wall_s = (min(after[i] - before[i] for before, after in steps) for i in (0, 1))
        return {
            "per_cpu_s": supervised_per_row() / cpu_s,
            "per_wall_s": supervised_per_row() / wall_s,
            "loss": loss,
        }


def run_ours(work: Path, precision: str, steps: int) -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    from artifacts.contract import LoraParams, TrainParams
    from artifacts.local import LocalStore
    from train import loop, metrics

    params = TrainParams(
        method="lora",
        lora=LoraParams(rank=16, alpha=32),
        epochs=None,
        steps=steps,
        learning_rate=1e-6,
        schedule="constant",
        warmup_steps=0,
        warmup_share=None,
        weight_decay=0.0,
        max_grad_norm=1.0,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        world_size=1,
        max_length=sum(DOCUMENTS),
        precision=precision,  # type: ignore[arg-type]
        gradient_checkpointing=False,
        seed=SEED,
        evaluate_every=None,
        save_every=None,
        log_every_steps=1,
        keep=1,
        strategy="ddp",
        offload="none",
    )
    clock, store = Clock(), LocalStore(work / f"store-{os.getpid()}")
    task = loop.TrainTask(
        params=params,
        model=work / "model",
        prepared=work / "prepared",
        store=store,
        prefix="train/bench",
        run_id="bench",
        work=work / f"work-{os.getpid()}",
        on_step=clock.mark,
    )
    loop.train_rank(task)
    losses = [row["loss"] for row in metrics.merged_from(store, task.prefix)]
    return clock.result(sum(losses) / len(losses))


def trainer_options(work: Path, precision: str, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(work / f"work-{os.getpid()}"),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "bf16": precision == "bf16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
    }


def model_and_lora(work: Path, precision: str) -> tuple[Any, Any]:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=dtype)
    return model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def clock_callback(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    return Callback()


def mean_loss(trainer: Any) -> float:
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return sum(losses) / len(losses)


def run_plain(work: Path, precision: str, steps: int) -> dict[str, float]:
    """What one writes with transformers alone: labels to the model, position ids that restart."""
    import torch
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(SEED)
    model, lora = model_and_lora(work, precision)
    data = [
        {
            "input_ids": torch.tensor(row["input_ids"]),
            "labels": torch.tensor(row["labels"]),
            "position_ids": torch.cat([torch.arange(length) for length in row["document_lengths"]]),
        }
        for row in json.loads((work / "rows.json").read_text())
    ]
    clock = Clock()
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(**trainer_options(work, precision, steps)),
        train_dataset=data,
        callbacks=[clock_callback(clock)],
    )
    trainer.train()
    return clock.result(mean_loss(trainer))


def run_trl(work: Path, precision: str, steps: int) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(SEED)
    model, lora = model_and_lora(work, precision)
    rows = json.loads((work / "rows.json").read_text())
    data = Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "labels": row["labels"], "seq_lengths": row["document_lengths"]}
            for row in rows
        ]
    )
    clock = Clock()
    options = trainer_options(work, precision, steps)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **options,
            packing=True,
            max_length=sum(DOCUMENTS),
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(work / "model"),
        peft_config=lora,
        callbacks=[clock_callback(clock)],
    )
    trainer.train()
    return clock.result(mean_loss(trainer))


RUNNERS: dict[str, Callable[[Path, str, int], dict[str, float]]] = {
    "ours": run_ours,
    "plain": run_plain,
    "trl": run_trl,
}


def trl_python(folder: Path) -> str:
    """An interpreter with TRL and, behind it, this environment's packages. Installed on the first call."""
    python = folder / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "overlay.pth").write_text(sysconfig.get_path("purelib") + "\n")
        requirements = ROOT / "requirements" / "bench.in"
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", requirements]
        subprocess.run(install, check=True)
    return str(python)


def measure(system: str, precision: str, work: Path, steps: int, trl_folder: Path) -> dict[str, float]:
    python = trl_python(trl_folder) if system == "trl" else sys.executable
    worker = [python, __file__, "--worker", system, precision, str(work), "--steps", str(steps)]
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("OMP_NUM_THREADS", None)
    ran = subprocess.run(worker, capture_output=True, text=True, env=environment)
    if ran.returncode:
        sys.exit(f"{' '.join(worker)}\n{ran.stderr[-3000:]}")
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument(
        "--trl", type=Path, default=Path(sys.prefix) / "bench-trl", help="environment for TRL"
    )
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        system, precision, work = options.worker
        print(json.dumps(RUNNERS[system](Path(work), precision, options.steps)))
        return
    systems = options.systems.split(",")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.steps)
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        for precision in PRECISIONS:
            for _ in range(options.rounds):
                for system in systems:
                    result = measure(system, precision, work, options.steps, options.trl)
                    results.setdefault((precision, system), []).append(result)
    print_table(results)


def prepare(work: Path, steps: int) -> None:
    sys.path.insert(0, str(ROOT))
    import pyarrow as pa

    rows = make_rows(steps)
    (work / "rows.json").write_text(json.dumps(rows))
    make_model(work / "model")
    (work / "prepared").mkdir()
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in rows[0]])
    path = str(work / "prepared" / "train-00000.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def print_table(results: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    heads = ("tokens/CPU s", 13), ("tokens/s", 9), ("ours is", 9), ("mean loss", 10)
    print(f"{'precision':10} {'system':22} " + " ".join(f"{head:>{width}}" for head, width in heads))
    for precision in PRECISIONS:
        ours = max(run["per_cpu_s"] for run in results[precision, "ours"])
        for (of, system), runs in results.items():
            if of != precision:
                continue
            best = max(runs, key=lambda run: run["per_cpu_s"])
            print(
                f"{precision:10} {SYSTEMS[system]:22} {best['per_cpu_s']:13.1f} {best['per_wall_s']:9.1f} "
                f"{ours / best['per_cpu_s']:8.2f}x {best['loss']:10.5f}"
            )


if __name__ == "__main__":
    main()
