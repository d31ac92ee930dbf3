"""Jobs for the cluster, and what a run has left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from artifacts.contract import Plan, StageKind
from artifacts.events import events_prefix
from artifacts.logs import LogReader
from artifacts.segments import read_all
from artifacts.store import Store
from launcher.record import load_plan

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples/quickstart.yaml"
DATA = ROOT / "examples/quickstart"


def write_job(folder: Path, name: str, **changes: Any) -> Path:
    """A job like the quickstart's, but short: sections of `changes` are merged into it."""
    job: dict[str, Any] = {
        "name": name,
        "model": {"twin": {"hidden_size": 64, "intermediate_size": 128}},
        "data": {"train": str(DATA / "train.jsonl"), "test": str(DATA / "test.jsonl")},
        "training": {
            "steps": 20,
            "learning_rate": 1e-2,
            "global_batch_size": 8,
            "max_length": 128,
            "precision": "fp32",
            "save_every": 10,
        },
        "compute": {"workers": 2},
        "predict": {"max_new_tokens": 8, "limit": 8},
    }
    for section, values in changes.items():
        job[section] = {**job.get(section, {}), **values} if isinstance(values, dict) else values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


class Run:
    """One run in the store."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id

    @property
    def plan(self) -> Plan:
        return load_plan(self.store, self.run_id)

    def events(self, stage: str = "", kind: str = "") -> list[dict[str, Any]]:
        rows = read_all(self.store, events_prefix(self.run_id))
        found = [row for row in rows if stage in ("", row["stage"]) and kind in ("", row["kind"])]
        return sorted(found, key=lambda row: float(row["time_s"]))

    def losses(self) -> dict[int, float]:
        """Training loss by step, of the attempts that count."""
        prefix = self.plan.stage(StageKind.TRAIN).output
        rows = map(json.loads, self.store.read_bytes(f"{prefix}/metrics.jsonl").splitlines())
        return {row["step"]: row["loss"] for row in rows if row.get("loss") is not None}

    def log(self, stage: str, source: str | None = None) -> str:
        return "\n".join(LogReader(self.store, self.run_id, stage, source).poll())

    def skipped(self) -> list[str]:
        """Stages that the newest drive found complete."""
        return list(self.events("run", "started")[-1]["skipped"])

    def step(self) -> int:
        """The newest step that training has told."""
        return max((row["done"] for row in self.events("train", "progress")), default=0)

    def is_over(self) -> bool:
        return bool(self.events("run", "finished") or self.events("run", "failed"))


def wait_until(what: str, met: Callable[[], Any], *, timeout_s: float, every_s: float = 1.0) -> Any:
    """The first true value of `met()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := met():
            return value
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
