"""A run whose products are made, and the stage that publishes them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from artifacts.contract import (
    DataFile,
    GgufParams,
    ModelParams,
    Plan,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
)
from artifacts.events import Events
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, read_marker
from artifacts.store import Store
from tests import plan_parts
from tests.launcher import synthetic_run

REPOSITORY = "org/harbour-bot"
WEIGHTS = random.Random(7).randbytes(3_000_000)
ADAPTER = random.Random(8).randbytes(40_000)
#: What must never be told.
SECRETS = ("/home/ada", "ada@", "acme-bucket", "build-host-7", "/jobs/")


def make(folder: Path, to: str = f"hub://{REPOSITORY}", **changes: Any) -> tuple[LocalStore, Plan]:
    """A finished run of synthetic_run, with a GPTQ form and GGUF files, and a stage `publish` to do."""
    store = synthetic_run.write_run(folder)
    plan = Plan.from_json(store.read_bytes(f"runs/{synthetic_run.RUN_ID}/plan.json"))
    stages = {stage.kind: stage for stage in plan.stages}
    source = ModelParams(source="hub", location="team/base", revision="c" * 40)
    stages[StageKind.MODEL] = dataclasses.replace(stages[StageKind.MODEL], params=source)
    data = stages[StageKind.DATA]
    files = [
        DataFile(path=path, size_bytes=1, sha256="ab" * 32, format="auto")
        for path in ("/home/ada/private/train.jsonl", "s3://acme-bucket/more/extra.jsonl")
    ]
    data = dataclasses.replace(data, params=dataclasses.replace(data.params, splits={"train": files}))
    stages[StageKind.DATA] = data
    stages[StageKind.QUANTIZE] = plan_parts.stage(StageKind.QUANTIZE, QuantizeParams(), "q" * 16)
    stages[StageKind.GGUF] = plan_parts.stage(StageKind.GGUF, GgufParams(name="harbour-bot"), "f" * 16)
    put_products(store, stages)
    sources = {"model": "merge", "adapter": "train", "quantized": "quantize", "gguf": "gguf"}
    params = PublishParams(to=to, products=["model", "adapter", "quantized", "gguf"], private=True)
    params = dataclasses.replace(params, **changes)
    inputs = {name: stages[StageKind(sources[name])] for name in params.products}
    inputs |= {name: stages[StageKind(name)] for name in ("data", "train", "predict")}
    stages[StageKind.PUBLISH] = plan_parts.stage(StageKind.PUBLISH, params, "9" * 16, **inputs)
    job = plan.job | {
        "model": {"hub": "team/base", "revision": "c" * 40, "folder": None},
        "data": {"train": ["/home/ada/private/train.jsonl", "s3://acme-bucket/more/extra.jsonl"]},
        "publish": {"to": "s3://acme-bucket/models"},
        "training": {"epochs": 3, "note": "/home/ada/x", "tracker": "http://build-host-7/", "by": "ada@host"},
    }
    plan = dataclasses.replace(plan, stages=list(stages.values()), job=job)
    store.write_bytes(f"runs/{synthetic_run.RUN_ID}/plan.json", plan.to_json())
    return store, plan


def put_products(store: Store, stages: dict[StageKind, StagePlan]) -> None:
    config = {"model_type": "qwen3", "_name_or_path": "/home/ada/models/base"}
    whole = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ x }}",
    }
    put(store, stages[StageKind.MERGE], whole, drift=0.0012)
    figures = {"bits": 4, "perplexity_before": 9.5, "perplexity_after": 9.75}
    put(store, stages[StageKind.QUANTIZE], whole | {"model.safetensors": WEIGHTS[:900_000]}, **figures)
    files = {"harbour-bot-q4_k_m.gguf": WEIGHTS[:700_000], "Modelfile": b"FROM ./harbour-bot-q4_k_m.gguf\n"}
    put(store, stages[StageKind.GGUF], files, files={"harbour-bot-q4_k_m.gguf": 700_000})
    adapter = {"base_model_name_or_path": "models/0123", "revision": None, "r": 16}

    put(
        store,
        stages[StageKind.TRAIN],
        {
            "adapter_config.json": json.dumps(adapter).encode(),
            "adapter_model.safetensors": ADAPTER,
            "tensorboard/events.out.tfevents.0.slipway": b"build-host-7",
            "optimizer.pt": b"pickle",
            "metrics.jsonl": metric_rows(),
        },
        versions={"torch": "2.15.0", "peft": "0.21.2"},
    )


def metric_rows() -> bytes:
    rows = [{"step": step, "loss": 3.0 / step, "attempt": 1} for step in range(1, 91)]
    rows += [{"step": step, "eval_loss": 3.5 / step, "attempt": 1} for step in (30, 60, 90)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def put(store: Store, stage: StagePlan, contents: dict[str, bytes], /, **facts: Any) -> None:
    writer = ArtifactWriter(store, stage.output)
    for path, content in contents.items():
        writer.write_bytes(path, content)
    writer.commit(**facts)


def publish(store: Store, plan: Plan) -> dict[str, Any]:
    """Carry out the stage in this process; returns its marker's facts."""
    from launcher import publishing

    events = Events(store, synthetic_run.RUN_ID, StageKind.PUBLISH)
    publishing.run(plan, synthetic_run.RUN_ID, store, events)
    events.flush()
    marker = read_marker(store, plan.stage(StageKind.PUBLISH).output)
    assert marker is not None
    return marker.facts
