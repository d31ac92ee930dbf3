"""Tokenizing speed and memory of the prepare stage: MB of text per CPU second, peak RSS.

    python bench/prepare.py [--records N] [--rounds N] [--peers]

Peers, over the same text in the same run: the `tokenizers` library alone (`encode_batch` of texts that are
rendered already, nothing else), and the plain loop over `apply_chat_template` that most scripts have. With
`--peers` also the preprocessing of LLaMA-Factory and TRL, of the same file, with masks and packing to 2048
tokens. They are in no lock of ours: they are installed (`requirements/bench-llamafactory.in`,
`requirements/bench.in`) into environments of their own. Of the rounds the one with the least CPU time counts,
so that neighbours on the machine matter less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import environments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH_RECORDS = 1024
VOCABULARY = 8000
MEASURES = {
    "library": "tokenizers library alone",
    "prepare": "prepare (labels, packing, shards)",
    "loop": "loop over apply_chat_template",
}
PEERS = {"llamafactory": "LLaMA-Factory's preprocessing", "trl": "TRL's preprocessing"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="LLaMA-Factory and TRL, too")
    for name in PEERS:
        parser.add_argument(f"--{name}", type=Path, help=f"environment for {name}")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.store)))
        return
    with tempfile.TemporaryDirectory() as folder:
        text_bytes = make_inputs(Path(folder), options.records)
        print(f"{options.records} conversations, {text_bytes / 1e6:.1f} MB of text, {os.cpu_count()} cores")
        print(f"{'':34}{'CPU s':>8}{'wall s':>8}{'MB/CPU s':>10}{'RSS MB':>8}")
        commands = {
            label: [sys.executable, __file__, "--measure", name, "--store", folder]
            for name, label in MEASURES.items()
        }
        for name, label in PEERS.items() if options.peers else ():
            python = environments.peer_python(name, getattr(options, name))
            commands[label] = [python, str(ROOT / f"bench/peers/{name}_prepare.py"), folder]
        rounds = [{label: run(command) for label, command in commands.items()} for _ in range(options.rounds)]
        for label in commands:
            show(label, text_bytes, min((each[label] for each in rounds), key=lambda cost: cost["cpu_s"]))


def run(command: list[str]) -> dict[str, float]:
    shutil.rmtree(Path(command[-1]) / "prepared", ignore_errors=True)  # what ours made the round before
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)}\n{ran.stderr[-3000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def show(label: str, text_bytes: int, cost: dict[str, float]) -> None:
    print(
        f"{label:34}{cost['cpu_s']:8.1f}{cost['wall_s']:8.1f}"
        f"{text_bytes / 1e6 / cost['cpu_s']:10.2f}{cost['peak_rss_bytes'] / 1e6:8.0f}"
    )


def make_inputs(folder: Path, records: int) -> int:
    """A data artifact of conversations cut from the standard library's sources, and a twin trained on them.
    Returns the bytes of text."""
    import train.model
    from artifacts.contract import ModelParams, StageKind, TwinParams
    from artifacts.local import LocalStore
    from tests.train.stage_inputs import put_data, stage_context

    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8", errors="ignore") for file in sources)
    chance = random.Random(0)

    def message(role: str) -> dict[str, str]:
        characters = chance.randrange(40, 800)
        start = chance.randrange(len(text) - characters)
        return {"role": role, "content": text[start : start + characters]}

    conversations = [
        [message(role) for _ in range(chance.choice([1, 1, 1, 2, 4])) for role in ("user", "assistant")]
        for _ in range(records)
    ]
    store = LocalStore(folder)
    put_data(store, {"train": conversations})
    twin = ModelParams(source="twin", twin=TwinParams(hidden_size=32, vocabulary_size=VOCABULARY))
    train.model.run(stage_context(store, StageKind.MODEL, folder / "work", model=twin))
    return sum(len(turn["content"].encode()) for messages in conversations for turn in messages)


def measure(name: str, folder: Path) -> dict[str, float]:
    """Run one measure in this process. Imports and the peers' preparations are not counted."""
    run = {"prepare": ready_prepare, "library": ready_library, "loop": ready_loop}[name](folder)
    from bench.cost import cost

    return cost(run)


def ready_prepare(folder: Path) -> Callable[[], None]:
    import train.prepare
    from artifacts.contract import PrepareParams, StageKind
    from artifacts.local import LocalStore
    from tests.train.stage_inputs import stage_context

    params = PrepareParams(max_length=2048, packing=True)
    context = stage_context(LocalStore(folder), StageKind.PREPARE, folder / "work", prepare=params)
    return lambda: train.prepare.run(context)


def ready_library(folder: Path) -> Callable[[], None]:
    from train.data.loading import load_chat_tokenizer
    from train.data.records import read_records

    tokenizer = load_chat_tokenizer(folder / "models/key")
    records = read_records([folder / "data/key/train-00000.jsonl"])
    texts = [tokenizer.template.render(record["messages"]) for record in records]

    def run() -> None:
        for start in range(0, len(texts), BATCH_RECORDS):
            tokenizer.backend.encode_batch(texts[start : start + BATCH_RECORDS], add_special_tokens=False)

    return run


def ready_loop(folder: Path) -> Callable[[], None]:
    from transformers import AutoTokenizer

    from train.data.records import read_records

    tokenizer = AutoTokenizer.from_pretrained(folder / "models/key")

    def run() -> None:
        for record in read_records([folder / "data/key/train-00000.jsonl"]):
            tokenizer.apply_chat_template(record["messages"], tokenize=True)

    return run


if __name__ == "__main__":
    main()
