"""GPTQ: Slipway's stage `quantize` against gptqmodel called as its README says.

    python bench/quantize.py [--hidden 512] [--layers 4] [--bits 4] [--sequences 64]

Trains a Qwen3 of that size for a while on a made-up language, quantizes it each way in a process of its own
(importing included; the kernels and extensions that it compiles too, in an empty cache) and measures all
three models' perplexity on the same texts. The stage also does that itself, twice: before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VOCABULARY, FOLLOWERS, LENGTH, GROUP_SIZE = 512, 4, 256, 128


def sentences(count: int, seed: int) -> list[list[int]]:
    """Each token is followed by one of four, mostly by the one that the token before it decides."""
    import numpy as np

    followers = np.random.default_rng(0).integers(1, VOCABULARY, (VOCABULARY, FOLLOWERS))
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = [0, int(random.integers(1, VOCABULARY))]
        while len(tokens) <= LENGTH:
            likely = tokens[-2] % FOLLOWERS if random.random() < 0.8 else int(random.integers(FOLLOWERS))
            tokens.append(int(followers[tokens[-1], likely]))
        made.append(tokens[1:])
    return made


def make(folder: Path, options: argparse.Namespace) -> None:
    """`base/`, a model, and `prepared/`, the splits train and eval."""
    import pyarrow as pa
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from train.data.shards import SCHEMA, shard_name

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 128,
        head_dim=64,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in torch.tensor(sentences(options.steps * 4, seed=1)).view(options.steps, 4, LENGTH):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(folder / "base")
    (folder / "prepared").mkdir()
    for split, count, seed in (("train", options.sequences, 2), ("eval", 16, 3)):
        texts = sentences(count, seed)
        rows = pa.record_batch([texts, texts, [[len(text)] for text in texts]], schema=SCHEMA)
        path = folder / "prepared" / shard_name(split, 0)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as file:
            file.write_batch(rows)


def with_slipway(folder: Path, options: argparse.Namespace) -> None:
    from artifacts.contract import Plan, QuantizeParams, StageKind, StagePlan
    from artifacts.events import Events
    from artifacts.local import LocalStore
    from artifacts.manifest import Manifest, write_marker
    from train import quantize
    from train.stage import StageContext

    store = LocalStore(folder / "store")
    inputs = {"model": "base", "prepare": "prepared"}
    for name in inputs.values():
        write_marker(store, name, Manifest(files=[], location=(folder / name).as_uri()))
    params = QuantizeParams(bits=options.bits, group_size=GROUP_SIZE, calibration_sequences=options.sequences)
    stage = StagePlan(kind=StageKind.QUANTIZE, key="k", inputs=inputs, output="slipway", params=params)
    plan = Plan(
        name="bench",
        cluster="local",
        backend="local",
        store=store.uri,
        stages=[stage],
        engine="torchrun",
        job={"name": "bench"},
    )
    events = Events(store, "run", "quantize")
    quantize.run(StageContext(plan, "run", stage, store, folder / "work", events))


def with_gptqmodel(folder: Path, options: argparse.Namespace) -> None:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    model = GPTQModel.load(str(folder / "base"), QuantizeConfig(bits=options.bits, group_size=GROUP_SIZE))
    examples = [torch.tensor(text)[None] for text in sentences(options.sequences, seed=2)]
    model.quantize([{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in examples])
    model.save(str(folder / "gptqmodel"))


def print_perplexities(folder: Path) -> None:
    """As JSON, by the folder's name: with one kernel for all."""
    import numpy as np

    from train.quantizing import kernels
    from train.quantizing.documents import Document
    from train.quantizing.perplexity import measure_folder

    texts = [Document(np.array(text), np.ones(len(text), bool)) for text in sentences(16, seed=3)]
    found = {}
    for name in ("base", "gptqmodel", "store/slipway"):
        stored = json.loads((folder / name / "config.json").read_text()).get("quantization_config")
        how = {"quantization_config": kernels.loading_config(stored)} if stored else {}
        fit = measure_folder(folder / name, texts, lambda done: None, trust_remote_code=False, **how)
        found[name] = fit.perplexity
    print(json.dumps(found))


def run(folder: Path, child: str, options: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident memory in MB (of its largest process) and the last line of the child `child`."""
    home = folder / f"home-{child}"
    home.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(home),
        "GPTQMODEL_CPU_WORKERS": "2",
    }
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        *options,
        "--child",
        child,
        "--folder",
        str(folder),
    ]
    log = folder / f"{child}.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    text = log.read_text(errors="replace")
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{child} failed:\n{text[-2000:]}")
    return seconds, usage.ru_maxrss / 1024, text.strip().splitlines()[-1] if text.strip() else ""


CHILDREN = {
    "make": make,
    "gptqmodel": with_gptqmodel,
    "slipway": with_slipway,
    "measure": lambda folder, _: print_perplexities(folder),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--bits", type=int, choices=[4, 8], default=4)
    parser.add_argument("--sequences", type=int, default=64, help="that calibrate")
    parser.add_argument("--steps", type=int, default=60, help="of training")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child](options.folder, options)
        return
    with tempfile.TemporaryDirectory(prefix="bench-quantize-") as temporary:
        compare(Path(temporary))


def compare(folder: Path) -> None:
    given = sys.argv[1:]
    run(folder, "make", given)
    found = {name: run(folder, name, given) for name in ("gptqmodel", "slipway")}
    perplexities = json.loads(run(folder, "measure", given)[2])
    print(f"{'':12}{'seconds':>9}{'peak MB':>9}{'perplexity':>12}")
    print(f"{'base':12}{'':18}{perplexities['base']:>12}")
    for name, path in (("gptqmodel", "gptqmodel"), ("slipway", "store/slipway")):
        seconds, peak_mb, _ = found[name]
        print(f"{name:12}{seconds:9.1f}{peak_mb:9.0f}{perplexities[path]:>12}")


if __name__ == "__main__":
    main()
