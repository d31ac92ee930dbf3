"""Stage `data` on one big file, beside `datasets.load_dataset("json")` over the same file.

    python bench/data_stage.py [--gigabytes 5] [--kind lines|list|alpaca] [--folder DIR]

Slipway: every record parsed, checked, counted, fingerprinted for duplicates, input and output hashed, written
as shards, fsynced. datasets: parsed into its Arrow cache, and in the third row also written as JSON lines
again; neither checks a conversation nor hashes. Peak RSS is the child process's (`ru_maxrss`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

SLIPWAY = """
import sys, time, hashlib
from pathlib import Path
from artifacts.contract import DataFile, DataParams, StageKind, StagePlan
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import hash_file
from launcher.stages import data_run
path, folder, record_format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
size, sha256 = hash_file(path)
file = DataFile(path=str(path), size_bytes=size, sha256=sha256, format=record_format)
params = DataParams(splits={"train": [file]})
stage = StagePlan(kind=StageKind.DATA, key="k", inputs={}, output="data/k", params=params)
store = LocalStore(folder)
start = time.perf_counter()
report = data_run.run(stage, store, Events(store, "run", "data"))
seconds, records = time.perf_counter() - start, report.splits["train"].records
"""

DATASETS = """
import sys, time
from datasets import load_dataset
path, folder, write = sys.argv[1], sys.argv[2], sys.argv[3] == "write"
start = time.perf_counter()
rows = load_dataset("json", data_files=path, split="train", cache_dir=folder)
if write:
    rows.to_json(folder + "/out.jsonl", lines=True)
seconds, records = time.perf_counter() - start, len(rows)
"""

MEASURE = """
import json, resource
print(json.dumps([seconds, records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the file (10⁹ bytes)")
    parser.add_argument("--kind", choices=["lines", "list", "alpaca"], default="lines")
    parser.add_argument("--folder", type=Path, help="where scratch files go (three times the size)")
    parser.add_argument("--no-peer", action="store_true", help="measure Slipway alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = folder / ("input.jsonl" if options.kind == "lines" else "input.json")
        make_file(path, options.kind, int(options.gigabytes * 1e9))
        record_format = "alpaca" if options.kind == "alpaca" else "messages"
        rows = [("slipway, stage data", measure(SLIPWAY, path, folder / "store", record_format))]
        if not options.no_peer:
            rows += [
                ("datasets, load", measure(DATASETS, path, folder / "cache", "load")),
                ("datasets, load and write", measure(DATASETS, path, folder / "cache-2", "write")),
            ]
        size = path.stat().st_size
    print(f"{options.kind}: {size / 1e9:.2f} GB, {rows[0][1][1]:,} records, {os.cpu_count()} cores\n")
    print(f"| {'':24} | seconds | MB/s | records/s | peak RSS, MB |\n|{'-' * 26}|---:|---:|---:|---:|")
    for title, (seconds, records, peak_bytes) in rows:
        figures = (
            f"{seconds:.1f} | {size / seconds / 1e6:.0f} | {records / seconds:,.0f} | {peak_bytes / 1e6:.0f}"
        )
        print(f"| {title:24} | {figures} |")


def measure(program: str, path: Path, folder: Path, option: str) -> tuple[float, int, int]:
    """(seconds, records, peak RSS in bytes) of a child process."""
    folder.mkdir()
    environment = os.environ | {
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    child = subprocess.run(
        [sys.executable, "-c", program + MEASURE, str(path), str(folder), option],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if child.returncode:
        sys.exit(f"the child process ended with {child.returncode}")
    seconds, records, peak_bytes = json.loads(child.stdout.splitlines()[-1])
    return seconds, records, peak_bytes


def make_file(path: Path, kind: str, size_bytes: int) -> None:
    """Conversations of 0.2 to 3 KB; one in eight in another script. A block of them repeats, numbered."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 9))) for _ in range(2000)]
    words += ["，数据", "训练 模型", "élan", "naïve", '"quoted"', "new\nline"]

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(low, high)))

    block = []
    for _ in range(5000):
        question, answer, system = text(5, 80), text(10, 200), text(5, 30)
        if kind == "alpaca":
            record = {"instruction": "NUMBER " + question, "input": "", "output": answer, "system": system}
        else:
            turns = [("system", system), ("user", "NUMBER " + question), ("assistant", answer)]
            record = {"messages": [{"role": role, "content": content} for role, content in turns]}
        layout = {"indent": 2} if kind == "alpaca" else {}
        block.append(json.dumps(record, ensure_ascii=draw.random() < 0.125, **layout))
    number, written = 0, 0
    with path.open("wb") as stream:
        stream.write(b"" if kind == "lines" else b"[\n")
        while written < size_bytes:
            separator = "\n" if kind == "lines" else ",\n"
            lines = [record.replace("NUMBER", str(number + index), 1) for index, record in enumerate(block)]
            data = (separator if number and kind != "lines" else "") + separator.join(lines)
            written += stream.write((data + ("\n" if kind == "lines" else "")).encode())
            number += len(block)
        stream.write(b"" if kind == "lines" else b"\n]\n")


if __name__ == "__main__":
    main()
