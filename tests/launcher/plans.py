"""Jobs, profiles and model folders on disk, for tests of the planner."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifacts.contract import Plan, StageKind
from launcher import plan
from launcher.digests import Digests
from launcher.machine import Gpu, Machine
from launcher.spec.job import Job
from launcher.spec.load import Loaded, load_cluster, load_job

GIB = 1024**3
LAPTOP = Machine(cores=8, memory_bytes=32 * GIB)
H100 = Gpu("NVIDIA H100 80GB HBM3", 81_559 * 1024**2, (9, 0))
EIGHT_H100 = Machine(cores=96, memory_bytes=1024 * GIB, gpus=(H100,) * 8)

#: config.json of Qwen/Qwen3-8B.
QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}
JOB: dict[str, Any] = {
    "name": "bot",
    "model": {"twin": {}},
    "data": {"train": "train.jsonl", "eval": "dev.jsonl", "test": "test.jsonl"},
    "method": "lora",
}


def fixed_code(kind: StageKind) -> str:
    """A stage's code digest that no edit of the code changes."""
    return f"code of {kind}"


def write_data(folder: Path) -> None:
    for name, count in (("train", 40), ("dev", 8), ("test", 8)):
        rows = [{"instruction": f"{name} question {i}?", "output": f"answer {i}"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_job(folder: Path, overrides: Sequence[str] = (), **sections: Any) -> Loaded[Job]:
    """`JOB` with other `sections`, as a file (JSON is YAML) beside its data files."""
    if not (folder / "train.jsonl").exists():
        write_data(folder)
    path = folder / "job.yaml"
    path.write_text(json.dumps({**JOB, **sections}, indent=2))
    return load_job(path, overrides)


def make_plan(
    folder: Path, machine: Machine = LAPTOP, *overrides: str, profile: Path | None = None, **keywords: Any
) -> Plan:
    """The plan of the job in `folder` (written first unless it is there), with fixed code digests, on this
    machine unless there is another `profile`."""
    path = folder / "job.yaml"
    job = load_job(path, overrides) if path.exists() else write_job(folder, overrides)
    if profile is None:
        profile = folder / "local.yaml"
        profile.write_text(f"backend: local\nstore: {folder}/store\nwork: {folder}/work\n")
    options = {"code": fixed_code, "digests": Digests(), **keywords}
    return plan.make(job, load_cluster(str(profile)), machine, **options)


def write_model(folder: Path, config: dict[str, Any] = QWEN3_8B, shards: int = 2) -> Path:
    """A model folder whose weights are a few bytes: the planner hashes them and reads only the config."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    names = [f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index in range(shards)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    index = {"metadata": {}, "weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def reasons(plan: Plan) -> dict[str, tuple[Any, str]]:
    """Derived values by field: (value, reason)."""
    return {derived.field: (derived.value, derived.reason) for derived in plan.derived}


def assert_golden(name: str, text: str) -> None:
    """Compare with tests/golden/`name`; UPDATE_GOLDEN=1 writes it anew."""
    path = Path(__file__).parents[1] / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; if that is meant: UPDATE_GOLDEN=1"
