"""Merging an adapter: Slipway's streaming merge against PEFT's `merge_and_unload` + `save_pretrained`.

    python bench/merge.py [--gigabytes 2] [--dtype bfloat16] [--repeat 3]

Makes a Llama of about that size in at least eight shards, runs each way in its own process (importing
included) and compares the merged bytes. `cp` of the base model is there for scale. Both ways write the whole
model; ours alone also hashes it and waits until it is on the disk. What the stage does after it, comparing
logits of the merged model with those of base and adapter, is measured apart.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def make_model(folder: Path, gigabytes: float, dtype: str) -> None:
    """A Llama of the wanted size, with an adapter on every linear layer in `adapter/`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, item_bytes = 2048, torch.finfo(getattr(torch, dtype)).bits // 8
    layer = 4 * hidden * hidden + 3 * hidden * 5632
    layers = max(1, round((gigabytes * 1e9 / item_bytes - 2 * 32000 * hidden) / layer))
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=hidden,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=16,
    )
    torch.set_default_dtype(getattr(torch, dtype))
    model = LlamaForCausalLM(config)
    size_bytes = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder / "base", max_shard_size=size_bytes // 9)
    tuned = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    tuned.save_pretrained(folder / "adapter")


def merge_with_peft(folder: Path, shard_bytes: int) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    merged.save_pretrained(folder / "peft", max_shard_size=shard_bytes)


def merge_with_slipway(folder: Path, shard_bytes: int) -> None:
    from artifacts.contract import MergeParams
    from artifacts.local import LocalStore
    from artifacts.manifest import ArtifactWriter
    from train.merging import layout
    from train.merging.adapter import read_adapter
    from train.merging.tensors import model_tensors
    from train.merging.writing import write_merged

    tensors, untied = layout.with_adapter(model_tensors(folder / "base"), read_adapter(folder / "adapter"))
    params = MergeParams(max_shard_size_bytes=shard_bytes)
    writer = ArtifactWriter(LocalStore(folder / "store"), "merged/bench")
    writer.commit(**write_merged(writer, folder / "base", tensors, params, untied=untied))


def measure_drift(folder: Path) -> None:
    from train.merging import drift

    found = drift.measure(folder / "base", folder / "adapter", folder / "store" / "merged" / "bench")
    print(f"drift: {found.share:.3g}, same top token at {found.same_top:.1%} of positions")


def measure(command: list[str]) -> tuple[float, float]:
    """(seconds, peak resident memory in MB) of a child process."""
    started = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed")
    return seconds, usage.ru_maxrss / 1024


def digests(folder: Path) -> dict[str, str]:
    """Tensor name -> SHA-256 of its bytes."""
    from train.merging.tensors import model_tensors

    found = {}
    for name, tensor in model_tensors(folder).items():
        digest = hashlib.sha256()
        for block in tensor.blocks():
            digest.update(block)
        found[name] = digest.hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the fastest of each way counts")
    parser.add_argument("--child", choices=["make", "peft", "slipway", "drift"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard-bytes", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "make":
        make_model(options.folder, options.gigabytes, options.dtype)
    elif options.child == "peft":
        merge_with_peft(options.folder, options.shard_bytes)
    elif options.child == "slipway":
        merge_with_slipway(options.folder, options.shard_bytes)
    elif options.child == "drift":
        measure_drift(options.folder)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-merge-") as temporary:
            compare(Path(temporary), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    this = [sys.executable, str(Path(__file__).resolve()), "--folder", str(folder), "--dtype", options.dtype]
    measure([*this, "--child", "make", "--gigabytes", str(options.gigabytes)])
    files = sorted((folder / "base").glob("*.safetensors"))
    sizes = [file.stat().st_size for file in files]
    shard_bytes = max(sizes)
    ways = {
        "cp -r && sync": ["sh", "-c", f"cp -r {folder}/base {folder}/copy && sync -f {folder}/copy"],
        "PEFT merge_and_unload + save": [*this, "--child", "peft", "--shard-bytes", str(shard_bytes)],
        "Slipway merge": [*this, "--child", "slipway", "--shard-bytes", str(shard_bytes)],
    }
    outputs = {"cp -r && sync": "copy", "PEFT merge_and_unload + save": "peft", "Slipway merge": "store"}
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.repeat):
        for way, command in ways.items():
            shutil.rmtree(folder / outputs[way], ignore_errors=True)
            os.sync()
            seconds, megabytes = measure(command)
            fastest, peak = best.get(way, (seconds, megabytes))
            best[way] = min(seconds, fastest), max(megabytes, peak)
    same = digests(folder / "peft") == digests(folder / "store" / "merged" / "bench")
    best["Slipway drift check"] = measure([*this, "--child", "drift"])
    gigabytes, largest = sum(sizes) / 1e9, shard_bytes / 1e6
    print(f"model: {gigabytes:.2f} GB {options.dtype}, {len(files)} shards, largest {largest:.0f} MB")
    print(f"{'':30} {'seconds':>8} {'peak MB':>8}")
    for way, (seconds, megabytes) in best.items():
        print(f"{way:30} {seconds:8.1f} {megabytes:8.0f}")
    ours, peft = best["Slipway merge"], best["PEFT merge_and_unload + save"]
    print(f"time: {ours[0] / peft[0]:.2f} of PEFT's (bar: 0.33)")
    print(
        f"memory: {ours[1]:.0f} MB (bar: 2 x largest shard + 400 MB = {2 * shard_bytes / 2**20 + 400:.0f} MB)"
    )
    print(f"same bits as PEFT: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
