"""A made-up run in a store: what every room leaves there, without running anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.contract import (
    DataFile,
    DataParams,
    Derived,
    GgufParams,
    LoraParams,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
    TwinParams,
)
from artifacts.events import events_prefix
from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter
from artifacts.segments import SegmentWriter
from tests import plan_parts

RUN_ID = "harbour-bot-1a2b3c4d"
BEGAN_S = 1_790_000_000.0
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

_TRAIN = plan_parts.train_params(
    method="lora",
    lora=LoraParams(rank=16, alpha=32),
    epochs=3.0,
    steps=None,
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=None,
    warmup_share=0.03,
    micro_batch_size=4,
    gradient_accumulation_steps=2,
    world_size=2,
    max_length=256,
)
_KEYS = {kind: f"{index + 1}f3a9c07d2b4e6f8"[:16] for index, kind in enumerate(StageKind)}
_FROM_TRAINING = set(list(StageKind)[list(StageKind).index(StageKind.TRAIN) :])


def make_plan(
    store: LocalStore,
    *,
    predict: bool = True,
    products: bool = False,
    other: Mapping[str, Any] | None = None,
) -> Plan:
    """`products`: quantized, converted and published too. `other`: training parameters that are not as
    elsewhere; its keys from there on are its own."""
    data = DataParams(
        splits={
            name: [
                DataFile(path=f"/jobs/data/{name}.jsonl", size_bytes=9000, sha256="ab" * 32, format="alpaca")
            ]
            for name in ("train", "eval", "test")
        },
        on_error="skip",
    )
    params: dict[StageKind, Any] = {
        StageKind.DATA: data,
        StageKind.MODEL: ModelParams(source="twin", twin=TwinParams()),
        StageKind.PREPARE: PrepareParams(max_length=256, packing=True),
        StageKind.TRAIN: dataclasses.replace(_TRAIN, **(other or {})),
        StageKind.MERGE: MergeParams(),
    }
    if products:
        params[StageKind.QUANTIZE] = QuantizeParams()
        params[StageKind.GGUF] = GgufParams(name="harbour-bot", types=["f16", "q4_k_m"])
    if predict:
        params[StageKind.PREDICT] = PredictParams()
    if products:
        params[StageKind.PUBLISH] = PublishParams(to="hub://harbour/bot", products=["model", "gguf"])
    salt = hashlib.sha256(repr(sorted((other or {}).items())).encode()).hexdigest()[:8] if other else ""
    stages: list[StagePlan] = []
    for kind, value in params.items():
        key = salt + _KEYS[kind] if kind in _FROM_TRAINING else _KEYS[kind]
        stages.append(plan_parts.stage(kind, value, key, **{made.kind.value: made for made in stages}))
    return plan_parts.plan(
        store,
        stages,
        "harbour-bot",
        job={
            "name": "harbour-bot",
            "model": {"twin": {"architecture": "qwen3", "hidden_size": 128}},
            "data": {"train": "train.jsonl", "eval": "eval.jsonl", "test": "test.jsonl"},
            "method": {"type": "lora", "rank": 16},
            "training": {"epochs": 3, "learning_rate": 0.002, "schedule": "cosine", "warmup_steps": None}
            | dict(other or {}),
        },
        derived=[
            Derived(
                field="training.gradient_accumulation_steps",
                value=params[StageKind.TRAIN].gradient_accumulation_steps,
                reason="global batch of 16 sequences = 2 workers × 4 per worker × 2",
            ),
            Derived(
                field="strategy", value="ddp", reason="the model fits into one worker's memory: 0.4 of 8 GB"
            ),
            Derived(field="training.precision", value="fp32", reason="no GPU here"),
        ],
    )


def write_run(
    folder: Path,
    *,
    until: StageKind = StageKind.PREDICT,
    ending: str = "finished",
    resumed: bool = False,
    predict: bool = True,
    products: bool = False,
    run_id: str = RUN_ID,
    other: Mapping[str, Any] | None = None,
    wrong_every: int = 6,
) -> LocalStore:
    """A run whose stages are complete before `until`; `until` itself ended with `ending`. One answer of so
    many is wrong. `products` and `other`: as in `make_plan`."""
    store = LocalStore(folder)
    plan = make_plan(store, predict=predict, products=products, other=other)
    store.write_bytes(f"runs/{run_id}/plan.json", plan.to_json())
    events = SegmentWriter(store, events_prefix(run_id), "all")
    at = BEGAN_S
    events.append({"time_s": at, "stage": "run", "kind": "started", "pid": 1, "host": "pier", "skipped": []})
    seconds = {"data": 0.4, "model": 0.8, "prepare": 1.6, "train": 31.0, "merge": 2.2, "predict": 6.1}
    seconds |= {"quantize": 40.0, "gguf": 9.0, "publish": 3.0}
    for stage in plan.stages:
        name = stage.kind.value
        events.append({"time_s": at, "stage": name, "kind": "started", "pid": 2})
        if resumed and stage.kind == StageKind.TRAIN:
            events.append({"time_s": at + 12, "stage": name, "kind": "checkpoint", "step": 30, "prefix": "p"})
            at += 15 + 50_000
            events.append({"time_s": at, "stage": name, "kind": "started", "pid": 3})
        if stage.kind == StageKind.TRAIN:
            for step in (30, 60, 90):
                row = {"stage": name, "kind": "checkpoint", "step": step, "prefix": "p"}
                events.append({"time_s": at + step / 3, **row})
            write_metrics(store, stage, complete=until != StageKind.TRAIN or ending == "finished")
        at += seconds[name]
        stopped = stage.kind == until and ending != "finished"
        why = {"cause": "rank 1 ran out of memory", "advice": "lower training.micro_batch_size"}
        row = {"time_s": at, "stage": name, "kind": ending if stopped else "finished"}
        events.append(row | (why if stopped and ending == "failed" else {}))
        if stopped:
            facts = {"failed_stage": name, **why, "evidence": "/home/me/logs"} if ending == "failed" else {}
            events.append({"time_s": at, "stage": "run", "kind": ending, **facts})
            break
        write_artifact(store, stage, wrong_every)
    events.flush()
    return store


def write_metrics(store: LocalStore, stage: StagePlan, *, complete: bool) -> None:
    noise, params = random.Random(1), stage.params
    steps_per_epoch = 480 // params.sequences_per_step
    writer = SegmentWriter(store, f"train/{stage.key}/metrics", "attempt-001")
    for step in range(1, 3 * steps_per_epoch + 1 if complete else 41):
        rate = 0.5 * (1 + math.cos(math.pi * step / 90)) if step > 3 else step / 3
        writer.append(
            {
                "step": step,
                "epoch": step / steps_per_epoch,
                "loss": 0.25 + 3.6 * math.exp(-step * params.learning_rate / 0.032) + noise.gauss(0, 0.08),
                "learning_rate": params.learning_rate * rate,
                "grad_norm": 0.4 + 2.5 * math.exp(-step / 20) + noise.random() * 0.3,
                "supervised_tokens_per_second": 2600 + noise.gauss(0, 90),
                "tokens_per_second": 5400 + noise.gauss(0, 160),
                "padding_share": 0.02,
                "data_wait_s": 0.001,
                "peak_memory_bytes": 812_000_000,
                "mfu": None,
                "time_s": BEGAN_S + 3 + step / 3,
                "attempt": 1,
            }
        )
        if step % steps_per_epoch == 0:
            loss = 0.4 + 2.9 * math.exp(-step * params.learning_rate / 0.036)
            row = {"step": step, "epoch": step / steps_per_epoch, "eval_loss": loss}
            writer.append({**row, "time_s": 0.0, "attempt": 1})
    writer.flush()


def write_artifact(store: LocalStore, stage: StagePlan, wrong_every: int = 6) -> None:
    writer = ArtifactWriter(store, stage.output)
    contents = {
        StageKind.DATA: {"report.json": DATA_REPORT},
        StageKind.PREPARE: {"statistics.json": STATISTICS},
        StageKind.PREDICT: {"scores.json": SCORES | {"tuned": SCORES["tuned"] | _matches(wrong_every)}},
    }.get(stage.kind, {"config.json": {"model_type": "qwen3", "of": stage.key}})
    for name, value in contents.items():
        writer.write_bytes(name, json.dumps(value).encode())
    if stage.kind == StageKind.PREDICT:
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions(wrong_every))
        writer.write_bytes("predictions.jsonl", rows.encode())
    writer.commit(**FACTS.get(stage.kind, {}))


def _matches(wrong_every: int) -> dict[str, float]:
    rows = predictions(wrong_every)
    right = sum(row["tuned"] == row["reference"] for row in rows)
    return {"exact_match": round(100 * right / len(rows), 2)}


def predictions(wrong_every: int = 6) -> list[dict[str, Any]]:
    places = [
        "Kiel",
        "Gdańsk",
        "Turku",
        "Bergen",
        "Oban",
        "Hull",
        "Brest",
        "Vigo",
        "Porto",
        "Cork",
        "Visby",
        "Riga",
    ]
    rows = []
    for index, place in enumerate(places * 2):
        reference = (
            f"The harbour office of {place} opens at {6 + index % 5} in the morning, every day but Sunday."
        )
        tuned = reference if index % wrong_every else reference.replace("morning", "evening")
        rows.append(
            {
                "index": index,
                "prompt": [
                    {"role": "system", "content": "You answer questions about harbours, in one sentence."},
                    {"role": "user", "content": f"When does the harbour office of {place} open?"},
                ],
                "reference": reference,
                "base": "the the of harb oror when when opens the of in in . . . The the of or harb",
                "tuned": tuned,
            }
        )
    rows[1]["prompt"][1]["content"] = HOSTILE
    rows[1]["base"] = HOSTILE
    return rows


FACTS: dict[StageKind, dict[str, Any]] = {
    StageKind.MERGE: {"parameters": 1_312_000, "drift": 3.1e-6, "same_top_token": 0.998},
    StageKind.QUANTIZE: {"bits": 4, "perplexity_before": 1.302, "perplexity_after": 1.348}
    | {"bytes_before": 2_620_000, "bytes_after": 930_000},
    StageKind.GGUF: {
        "files": {"harbour-bot-f16.gguf": 2_650_000, "harbour-bot-q4_k_m.gguf": 870_000},
        "same_tokens": True,
        "same_answers": {"f16": 1.0, "q4_k_m": 0.9},
    },
    StageKind.PUBLISH: {"address": "https://huggingface.co/harbour/bot", "revision": "5f" * 20},
}
SCORES = {
    "base": {"exact_match": 0.0, "bleu4": 0.43, "rouge1": 11.2, "rouge2": 0.9, "rougeL": 9.8},
    "tuned": {"exact_match": 83.33, "bleu4": 94.1, "rouge1": 98.6, "rouge2": 96.9, "rougeL": 98.6},
    "records": 24,
}
DATA_REPORT = {
    "splits": {
        name: {
            "files": [{"path": f"/jobs/data/{name}.jsonl", "said": "JSON lines, alpaca", "records": count}],
            "records": count,
            "bad_records": 2 if name == "train" else 0,
            "bad": [
                {
                    "number": 17,
                    "byte_offset": 4711,
                    "line": 17,
                    "reason": "output is empty",
                    "file": "train.jsonl",
                },
                {
                    "number": 90,
                    "byte_offset": 9120,
                    "line": 90,
                    "reason": f"role {HOSTILE}",
                    "file": "train.jsonl",
                },
            ]
            if name == "train"
            else [],
            "characters": {"user": 9000, "assistant": 12000},
            "longest_record_characters": 900,
            "shards": [f"{name}-00000.jsonl"],
        }
        for name, count in (("train", 384), ("eval", 24), ("test", 24))
    },
    "duplicates": 3,
    "overlap": {"eval": 0, "test": 0},
}
_SHARES = [1, 4, 14, 33, 52, 61, 55, 43, 33, 24, 18, 13, 9, 7, 5, 4, 3, 2, 1, 1, 2]
STATISTICS = {
    "splits": {
        name: {
            "max_length": 256,
            "records": count,
            "dropped": {},
            "truncated": 2 if name == "train" else 0,
            "documents": count,
            "tokens": count * 81,
            "supervised_tokens": count * 39,
            "sequences": count // 3,
            "longest_document": 271,
            "padding_share": 0.0217,
            "documents_per_sequence": 3.0,
            "length_histogram": [
                {"up_to": -(-256 * (bucket + 1) // 20) if bucket < 20 else None, "documents": documents}
                for bucket, documents in enumerate(_SHARES)
            ],
        }
        for name, count in (("train", 384), ("eval", 24))
    },
    "max_length": 256,
    "packing": True,
}
