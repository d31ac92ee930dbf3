"""CPU seconds that `slipway compare` takes for long runs: two of 10,000 logged steps with 2,000 answers each.

    python bench/compare.py [--steps 10000] [--answers 2000]

The runs are made up (tests/launcher/synthetic_run.py). `unfinished`: their metrics lie in the segments that a
training leaves while it goes on, one a second. There is no peer: what others show side by side lies in a
service of theirs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from artifacts.contract import StageKind
from artifacts.local import LocalStore
from launcher.compare import page, text
from launcher.compare.comparison import compare
from launcher.compare.runs import lettered, read
from tests.launcher.compare.compared import OTHER_ID, write_pair
from tests.launcher.synthetic_run import RUN_ID, make_plan, predictions

T = TypeVar("T")
_ROWS_PER_SEGMENT = 4  # of a training that logs four steps a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        write_pair(store.root)
        for other in (None, {"learning_rate": 1e-3}):
            lengthen(store, other, options.steps, options.answers)
        whole = timings(store)
        for other in (None, {"learning_rate": 1e-3}):
            unfinish(store, other)
        rows = zip(whole, timings(store), strict=True)
        print(f"{'two runs':<24}{'finished':>12}{'unfinished':>12}")
        for (name, finished_s), (_, unfinished_s) in rows:
            print(f"{name:<24}{finished_s:>10.2f} s{unfinished_s:>10.2f} s")


def timings(store: LocalStore) -> list[tuple[str, float]]:
    runs, read_s = timed(lambda: lettered([("local", read(store, name)) for name in (RUN_ID, OTHER_ID)]))
    made, compare_s = timed(lambda: compare(runs))
    _, text_s = timed(lambda: text.render(made, 100))
    html, page_s = timed(lambda: page.render(made))
    return [
        ("reading", read_s),
        ("comparing", compare_s),
        ("table", text_s),
        (f"page ({len(html) / 1e6:.1f} MB)", page_s),
    ]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def lengthen(store: LocalStore, other: dict[str, float] | None, steps: int, answers: int) -> None:
    """Many steps and answers instead of the made-up run's."""
    plan = make_plan(store, other=other)
    key = plan.stage(StageKind.TRAIN).key
    rows = [
        json.loads(line)
        for info in store.list(f"train/{key}/metrics")
        for line in store.read_bytes(info.key).splitlines()
    ]
    losses = [row for row in rows if "loss" in row]
    many = [
        {**losses[step * len(losses) // steps], "step": step + 1, "epoch": 3 * (step + 1) / steps}
        for step in range(steps)
    ]
    store.write_bytes(f"{plan.stage(StageKind.TRAIN).output}/metrics.jsonl", lines(many))
    asked = predictions()
    more = []
    for index in range(answers):
        row = json.loads(json.dumps(asked[index % len(asked)]))
        row["prompt"][1]["content"] += f" ({index})"
        more.append({**row, "index": index, "scores": {"tuned": {"rougeL": float(index % 100)}}})
    store.write_bytes(f"{plan.stage(StageKind.PREDICT).output}/predictions.jsonl", lines(more))


def unfinish(store: LocalStore, other: dict[str, float] | None) -> None:
    """The metrics as segments, without the file that the end of training makes of them."""
    train = make_plan(store, other=other).stage(StageKind.TRAIN)
    rows = store.read_bytes(f"{train.output}/metrics.jsonl").splitlines(keepends=True)
    store.delete(f"{train.output}/metrics.jsonl")
    for number, start in enumerate(range(0, len(rows), _ROWS_PER_SEGMENT)):
        body = b"".join(rows[start : start + _ROWS_PER_SEGMENT])
        store.write_bytes(f"train/{train.key}/metrics/attempt-002-{number:06d}.jsonl", body)


def lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


if __name__ == "__main__":
    main()
