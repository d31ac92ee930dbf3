"""What launching costs: from `slipway submit` to the first optimizer step, beside a script written by hand.

    python bench/launch_overhead.py [--engine torchrun|ray] [--repeat 3]
    python bench/launch_overhead.py --cluster NAME    # on Kubernetes: bench/launch_overhead_cluster.py

Submits the quickstart in an empty folder (data, model and tokens are all made anew) and reads the times
from the run's events; then runs `bench/peers/bare_training.py` on the same model and tokens, by torchrun or
as a bare Ray TorchTrainer. Medians over the repeats, which alternate.

Bars: from the start of the train stage 1.2 x the bare script; from submit 2 x (torchrun); `slipway --help`
0.4 s, `slipway plan` 1.0 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from artifacts.contract import Plan  # noqa: E402
from artifacts.local import LocalStore  # noqa: E402
from artifacts.segments import read_all  # noqa: E402

JOB = REPOSITORY / "examples" / "quickstart.yaml"
SETTINGS = ["training.steps=3", "predict.limit=1", "predict.max_new_tokens=1"]  # what follows doesn't count
IMPORTS = ("torch", "transformers", "torch._dynamo", "accelerate", "datasets", "peft", "train.trainer")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CI": "1"}


def slipway(*argv: str, folder: Path) -> float:
    """Seconds that the command took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "launcher.cli", *argv]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return time.perf_counter() - started


def submit(folder: Path, engine: str) -> dict[str, tuple[float, float]]:
    """Seconds after `submit` at which each stage started and ended, and `first step`'s moment."""
    overrides = [word for setting in (*SETTINGS, f"engine={engine}") for word in ("--set", setting)]
    submitted = time.time()
    slipway("submit", str(JOB), "--cluster", "local", *overrides, folder=folder)
    store = LocalStore(folder / ".slipway" / "store")
    (run,) = store.local_path("runs").iterdir()
    rows = list(read_all(store, f"runs/{run.name}/events"))
    times: dict[str, tuple[float, float]] = {}
    for stage in ("data", "model", "prepare", "train"):
        moments = {row["kind"]: row["time_s"] - submitted for row in rows if row["stage"] == stage}
        times[stage] = (moments["started"], moments["finished"])
    steps = [
        row["time_s"]
        for row in rows
        if row["stage"] == "train" and row["kind"] == "progress" and row["done"] == 1
    ]
    times["first step"] = (min(steps) - submitted,) * 2
    return times


def bare(folder: Path, engine: str) -> float:
    """Seconds from the peer's start to its first step."""
    store = LocalStore(folder / ".slipway" / "store")
    (run,) = store.local_path("runs").iterdir()
    plan = Plan.from_json((run / "plan.json").read_bytes())
    train, out = plan.stage("train"), folder / "first_step"
    out.unlink(missing_ok=True)
    arguments = [str(REPOSITORY / "bench" / "peers" / "bare_training.py")]
    inputs = [str(store.local_path(train.inputs[name])) for name in ("model", "prepare")]
    if engine == "ray":
        launch, extra = [sys.executable], ["--ray", str(train.params.world_size)]
    else:
        workers = ["--standalone", "--nproc-per-node", str(train.params.world_size)]
        launch, extra = [sys.executable, "-m", "torch.distributed.run", *workers], []
    started = time.time()
    command = [*launch, *arguments, *extra, *inputs, str(run / "plan.json"), str(out)]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"})
    return float(out.read_text()) - started


def import_seconds() -> dict[str, float]:
    """What the stage host imports before it forks the ranks, in this order: each one without those before."""
    code = f"""
import importlib, json, time
laps, last = {{}}, time.perf_counter()
for name in {IMPORTS}:
    importlib.import_module(name)
    laps[name], last = time.perf_counter() - last, time.perf_counter()
from train.preload import preload
preload()
laps["the rest (deepspeed, fsdp, ...)"] = time.perf_counter() - last
print(json.dumps(laps))
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("torchrun", "ray"), default="torchrun")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cluster", metavar="NAME", help="measure on this Kubernetes profile")
    options = parser.parse_args()
    if options.cluster:
        import launch_overhead_cluster

        launch_overhead_cluster.measure(options.cluster, options.repeat)
        return

    runs: list[dict[str, Any]] = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            times = submit(folder, options.engine)
            runs.append({"times": times, "bare": bare(folder, options.engine)})
    with tempfile.TemporaryDirectory() as name:
        help_s = median([slipway("--help", folder=Path(name)) for _ in range(5)])
        plan_s = median(
            [slipway("plan", str(JOB), "--cluster", "local", folder=Path(name)) for _ in range(5)]
        )

    print(f"{'seconds after submit':24} {'from':>8} {'to':>8}")
    for stage in runs[0]["times"]:
        start, end = (median([run["times"][stage][side] for run in runs]) for side in (0, 1))
        print(f"{stage:24} {start:8.2f} {end:8.2f}" if start != end else f"{stage:24} {start:17.2f}")
    print(f"\n{'imports':32} {'seconds':>8}")
    for name, seconds in import_seconds().items():
        print(f"{name:32} {seconds:8.2f}")
    bare_s = median([run["bare"] for run in runs])
    first_s = median([run["times"]["first step"][0] for run in runs])
    from_train_s = median([run["times"]["first step"][0] - run["times"]["train"][0] for run in runs])
    print(f"\n{'to the first step':44} {'seconds':>8} {'x bare':>8}")
    print(f"{f'bare script under {options.engine}':44} {bare_s:8.2f} {1:8.2f}")
    print(
        f"{'slipway, from the start of the train stage':44} {from_train_s:8.2f} {from_train_s / bare_s:8.2f}"
    )
    print(f"{'slipway, from submit (data and tokens cold)':44} {first_s:8.2f} {first_s / bare_s:8.2f}")
    print(f"\nslipway --help {help_s:.2f} s; slipway plan {plan_s:.2f} s")


if __name__ == "__main__":
    main()
