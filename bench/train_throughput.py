"""Supervised tokens per CPU second of training, packed beside unpacked, and ours beside others'.

    python bench/train_throughput.py [--tables packing,systems] [--systems ours,trl] [--precisions fp32,bf16]
                                     [--steps 8] [--packing-steps 24] [--rounds 2] [--peer NAME=FOLDER …]

A LoRA (rank 16 on all linear layers) of a 60M-parameter Llama with random weights, one process, gradient
checkpointing off. In bf16 the frozen base is held in bfloat16, with autocast. CPU seconds are counted, on one
core.

*Packing*: our trainer alone, over short chat data as our prepare stage leaves it. Unpacked are 16
conversations a micro-batch, padded to the longest; packed are two rows of 1024 tokens. Counted are all steps
but the first ones, of the fastest round; as these are a sample, their padding is shown beside that of all
steps of an epoch.

*Systems*: the same packed rows of 1024 tokens (35 % of them learnt), one row a step. Systems run in turns,
and of each its fastest step of all rounds counts, so that neighbours on the machine matter less. The peers
are in no lock of ours: each is installed (`requirements/bench*.in`) into an environment of its own, unless
`--peer` names one. TRL stands on top of our packages; LLaMA-Factory and Axolotl have those that they pin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import environments
import training_inputs

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

SYSTEMS = {
    "ours": "slipway",
    "plain": "transformers Trainer",
    "trl": "TRL SFTTrainer",
    "llamafactory": "LLaMA-Factory",
    "axolotl": "Axolotl",
}
WARMUP_STEPS = 2
CHAT_RECORDS = 4000
#: Rows of a micro-batch.
MICRO_BATCHES = {"packed": 2, "unpacked": 16}


def main() -> None:
    options = parse_options()
    # Threads that wait for one another spin: on a busy machine they burn more CPU seconds than the work.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        training_inputs.make_models(work)
        if "packing" in options.tables:
            compare_packing(work, options)
        if "systems" in options.tables:
            training_inputs.write_rows(work, options.steps)
            compare_systems(work, options)
        show_load()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def names(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--tables", type=names, default=["packing", "systems"])
    parser.add_argument("--systems", type=names, default=list(SYSTEMS))
    parser.add_argument("--precisions", type=names, default=list(training_inputs.PRECISIONS))
    parser.add_argument("--steps", type=int, default=8, help="of each run, the first ones not counted")
    parser.add_argument("--packing-steps", type=int, default=24, help="the same, for the table of packing")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="that a system may use")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER", help="its environment")
    return parser.parse_args()


def show_load() -> None:
    print(f"{os.cpu_count()} cores in the machine, load {os.getloadavg()[1]:.1f} over the last five minutes")


def compare_packing(work: Path, options: argparse.Namespace) -> None:
    statistics = training_inputs.make_chat(work, CHAT_RECORDS)
    packed = statistics["packed"]
    mean_tokens = packed["tokens"] / packed["documents"]
    print(
        f"{packed['documents']} conversations of {mean_tokens:.0f} tokens on average, "
        f"{packed['longest_document']} at most; packed {packed['documents_per_sequence']:.1f} a row, "
        f"padding share of all rows {packed['padding_share']:.2%}\n"
    )
    heads = (
        ("sequences", 10),
        ("padding", 9),
        ("of all", 8),
        ("tokens/CPU s", 14),
        ("tokens/s", 10),
        ("gain", 7),
    )
    print(f"{'precision':10}{'':10}" + "".join(f"{head:>{width}}" for head, width in heads))
    for precision in options.precisions:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in MICRO_BATCHES}
        for _ in range(options.rounds):
            for name, rows in MICRO_BATCHES.items():
                prepared = ["--prepared", str(work / name / "prepared/key"), "--micro-batch-size", str(rows)]
                runs[name].append(
                    run_system("ours", work, precision, options.packing_steps, options, prepared)
                )
        rates = {name: max(map(rate_of_run, of)) for name, of in runs.items()}
        for name, rows in MICRO_BATCHES.items():
            sample = [sum(column) for column in zip(*counted(runs[name][0]["tokens"]), strict=True)]
            whole = runs[name][0]["epoch_tokens"]
            print(
                f"{precision:10}{name:10}{rows * statistics[name]['documents_per_sequence']:10.0f}"
                f"{padding(sample):9.2%}{padding(whole):8.2%}{rates[name][0]:14.1f}{rates[name][1]:10.1f}"
                f"{rates[name][0] / rates['unpacked'][0]:6.2f}x"
            )
    print(flush=True)


def padding(tokens: list[int]) -> float:
    _, real, padded = tokens
    return 1 - real / padded


def counted(steps: list[Any]) -> list[Any]:
    """Without the warm-up; the result of a run leaves the first step out already."""
    return steps[WARMUP_STEPS - 1 :]


def rate_of_run(run: dict[str, Any]) -> tuple[float, float]:
    """Supervised tokens per CPU second and per second, over all steps."""
    supervised = sum(tokens[0] for tokens in counted(run["tokens"]))
    cpu_s, wall_s = map(sum, zip(*counted(run["steps"]), strict=True))
    return supervised / cpu_s, supervised / wall_s


def compare_systems(work: Path, options: argparse.Namespace) -> None:
    heads = ("tokens/CPU s", 13), ("of rounds", 15), ("tokens/s", 9), ("ours is", 9), ("mean loss", 10)
    print(f"{'precision':10} {'system':22} " + " ".join(f"{head:>{width}}" for head, width in heads))
    for precision in options.precisions:
        runs: dict[str, list[dict[str, Any]]] = {system: [] for system in options.systems}
        for _ in range(options.rounds):
            for system in options.systems:
                runs[system].append(run_system(system, work, precision, options.steps, options))
        ours = max(map(fastest_step, runs["ours"]))[0] if "ours" in runs else float("nan")
        for system, of in runs.items():
            rates = sorted(map(fastest_step, of))
            (slowest, _), (best, per_second) = rates[0], rates[-1]
            print(
                f"{precision:10} {SYSTEMS[system]:22} {best:13.1f} {f'{slowest:.1f}-{best:.1f}':>15} "
                f"{per_second:9.1f} {ours / best:8.2f}x {of[0]['loss']:10.5f}",
                flush=True,
            )


def fastest_step(run: dict[str, Any]) -> tuple[float, float]:
    """Supervised tokens per CPU second and per second: all steps do the same work, and neighbours only ever
    slow one down."""
    supervised = training_inputs.supervised_per_row()
    cpu_s, wall_s = (min(step[i] for step in counted(run["steps"])) for i in (0, 1))
    return supervised / cpu_s, supervised / wall_s


def run_system(
    system: str,
    work: Path,
    precision: str,
    steps: int,
    options: argparse.Namespace,
    more: list[str] | None = None,
) -> dict[str, Any]:
    script = "our_training.py" if system == "ours" else f"peers/{system}_training.py"
    command = [python_of(system, options.peer), str(ROOT / "bench" / script), str(work), precision]
    command += [str(steps), *(more or [])]
    environment = os.environ | {
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("OMP_NUM_THREADS", None)
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=work)
    if ran.returncode:
        sys.exit(f"{' '.join(command)}\n{ran.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def python_of(system: str, peers: list[str]) -> str:
    if system not in environments.PEERS:
        return sys.executable
    folders = dict(peer.split("=", 1) for peer in peers)
    return environments.peer_python(system, Path(folders[system]) if system in folders else None)


if __name__ == "__main__":
    main()
