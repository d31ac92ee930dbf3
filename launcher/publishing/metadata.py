"""A card's metadata: the front matter of README.md, as the hub reads it
(https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from artifacts.contract import Plan, Product, StageKind, TrainParams
from launcher.publishing import base_model
from launcher.publishing.licence import Licence
from launcher.publishing.products import main_product
from launcher.remote_data import HUB_FILE_PATTERN
from launcher.reporting.collect import RunFacts
from launcher.reporting.view import SCORES

#: What a product is to the base model, in the hub's words.
_RELATIONS: dict[Product, str] = {
    "model": "finetune",
    "adapter": "adapter",
    "quantized": "quantized",
    "gguf": "quantized",
}
#: The hub's identifiers of metrics.
_METRICS = {"exact_match": "exact_match", "bleu4": "bleu", "perplexity": "perplexity"}
SCORE_NAMES = SCORES | {"perplexity": "Perplexity of the references"}

Values = dict[str, Any]


def of(facts: RunFacts, products: Sequence[Product], licence: Licence) -> Values:
    """The card's front matter, as plain values."""
    plan, main = facts.plan, main_product(products)
    found: Values = {}
    if name := base_model.hub_name(plan, main):
        found |= {"base_model": name, "base_model_relation": _RELATIONS[main]}
    found |= licence.metadata
    if main != "gguf":
        found["library_name"] = "peft" if main == "adapter" else "transformers"
    found["pipeline_tag"] = "text-generation"
    found["tags"] = tags(plan, products)
    if sets := sorted(set(hub_data_sets(plan))):
        found["datasets"] = sets
    if results := _results(facts):
        found["model-index"] = [{"name": plan.name, "results": results}]
    return found


def tags(plan: Plan, products: Sequence[Product]) -> list[str]:
    training: TrainParams | None = plan.stage(StageKind.TRAIN).params if plan.has(StageKind.TRAIN) else None
    found = ["slipway"]
    if training is not None:
        found.append(training.method.replace("_", "-"))
        found += ["qlora"] if training.lora and training.quantization != "none" else []
    found += [word for word, name in (("gptq", "quantized"), ("gguf", "gguf")) if name in products]
    return found


def hub_data_sets(plan: Plan) -> Iterator[str]:
    """Data sets of the hub that the job trains on."""
    if plan.has(StageKind.DATA):
        for files in plan.stage(StageKind.DATA).params.splits.values():
            for file in files:
                if match := re.fullmatch(HUB_FILE_PATTERN, file.path):
                    yield match["repository"]


def _results(facts: RunFacts) -> list[Values]:
    scores = (facts.scores or {}).get("tuned") or {}
    metrics = [
        {"type": _METRICS.get(name, "rouge"), "name": label, "value": scores[name]}
        for name, label in SCORE_NAMES.items()
        if isinstance(scores.get(name), int | float)
    ]
    if not metrics:
        return []
    records = (facts.scores or {}).get("records")
    data = {"name": f"the job's own test split, {records} records", "type": "other"}
    return [{"task": {"type": "text-generation"}, "dataset": data, "metrics": metrics}]
