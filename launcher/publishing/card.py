"""The model card: README.md of what is published, written from the run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from artifacts.contract import ModelParams, Plan, Product, PublishParams, StageKind, StagePlan, TrainParams
from artifacts.manifest import Manifest
from launcher.publishing import loading, settings, writing
from launcher.publishing.curves import FILE as CURVES
from launcher.publishing.licence import Licence
from launcher.publishing.privacy import file_name, public_job
from launcher.publishing.products import PublishedFile, folders
from launcher.publishing.target import Target
from launcher.publishing.writing import Markup
from launcher.remote_data import HUB_FILE_PATTERN
from launcher.reporting import products as product_figures
from launcher.reporting import provenance, words
from launcher.reporting.collect import RunFacts
from launcher.reporting.data_view import split_order
from launcher.reporting.view import SCORES

FILE = "README.md"
_TEMPLATE = "card.md.j2"
#: What a product is to the base model, in the hub's words.
_RELATIONS: dict[Product, str] = {
    "model": "finetune",
    "adapter": "adapter",
    "quantized": "quantized",
    "gguf": "quantized",
}
#: The stages that measure something of a product.
_MAKERS: dict[Product, str] = {"model": "merge", "quantized": "quantize", "gguf": "gguf"}
#: The hub's identifiers of metrics.
_METRICS = {"exact_match": "exact_match", "bleu4": "bleu", "perplexity": "perplexity"}
_NAMES = SCORES | {"perplexity": "Perplexity of the references"}
_LOWER_IS_BETTER = {"perplexity"}
_VERSIONS = ("Python", "torch", "transformers", "peft", "accelerate", "deepspeed", "tokenizers", "gptqmodel")

Values = dict[str, Any]


def render(
    facts: RunFacts,
    stage: StagePlan,
    products: Mapping[Product, Manifest],
    licence: Licence,
    files: Sequence[PublishedFile],
    target: Target,
    *,
    has_curves: bool,
) -> str:
    """The card. Every value is escaped for Markdown as it is printed, and its metadata are written by a YAML
    library: no name from outside can form either."""
    import jinja2

    params: PublishParams = stage.params
    template = resources.files("launcher.publishing").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=False,  # of HTML: `finalize` escapes for Markdown
        finalize=writing.escaped,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"code": writing.code, "link": writing.link}
    where = folders(products)
    paths = [file.path for file in files]
    values = {
        "front_matter": Markup(writing.yaml(metadata(facts, params.products, licence))),
        "name": facts.plan.name,
        "summary": Markup(settings.summary(facts.plan, params.products)),
        "base": base(facts.plan),
        "contents": contents(where, files),
        "snippets": loading.snippets(target, where, paths, base_name(facts.plan), facts.plan.name),
        "data": data_rows(facts),
        "settings": settings.rows(facts.plan),
        "scores": score_rows(facts),
        "records": (facts.scores or {}).get("records"),
        "curves": CURVES if has_curves else None,
        "evaluations": [
            (words.count(row["step"]), words.number(row["eval_loss"]))
            for row in _spread(facts.evaluations, 8)
        ],
        "checks": checks(facts, params.products),
        "licence": licence,
        "versions": [row for row in provenance.versions(facts) if row[0] in _VERSIONS],
        "run_id": facts.run_id,
        "plan_digest": facts.plan.digest,
        "job": writing.block(provenance.job_text(public_job(facts.plan.job)), "yaml"),
    }
    text = environment.from_string(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text)


def metadata(facts: RunFacts, products: Sequence[Product], licence: Licence) -> Values:
    """The card's front matter, as the hub reads it (huggingface.co/docs/hub/model-cards)."""
    plan, main = facts.plan, products[0]
    found: Values = {}
    if name := base_name(plan):
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


def base_name(plan: Plan) -> str | None:
    """The base model's name on the Hugging Face hub, None where it has none there."""
    if not plan.has(StageKind.MODEL):
        return None
    params: ModelParams = plan.stage(StageKind.MODEL).params
    return params.location if params.source == "hub" and params.hub == "huggingface" else None


def base(plan: Plan) -> Values:
    """What the card says of the base model: `name` and `pin`, with `hub` where it can be fetched by both."""
    if not plan.has(StageKind.MODEL):
        return {"name": "a base model that this run did not fetch itself", "pin": None, "hub": None}
    params: ModelParams = plan.stage(StageKind.MODEL).params
    if params.source == "hub":
        return {"name": params.location, "pin": params.revision, "hub": params.hub}
    if params.source == "twin":
        twin = params.twin.architecture if params.twin else "small"
        return {"name": f"a tiny {twin} model with random weights", "pin": None, "hub": None}
    return {"name": "a model that is not on a hub", "pin": params.sha256, "hub": None}


def hub_data_sets(plan: Plan) -> Iterator[str]:
    """Data sets of the hub that the job trains on."""
    if plan.has(StageKind.DATA):
        for files in plan.stage(StageKind.DATA).params.splits.values():
            for file in files:
                if match := re.fullmatch(HUB_FILE_PATTERN, file.path):
                    yield match["repository"]


def data_rows(facts: RunFacts) -> list[Values]:
    """A row a file: split, name, records that passed, SHA-256. Never what a record holds."""
    if not facts.plan.has(StageKind.DATA):
        return []
    splits = facts.plan.stage(StageKind.DATA).params.splits
    rows = []
    for split in sorted(splits, key=split_order):
        report = ((facts.data or {}).get("splits") or {}).get(split) or {}
        read = {file.get("path"): file.get("records") for file in report.get("files", [])}
        for file in splits[split]:
            number = read.get(file.path)
            if number is None and len(splits[split]) == 1:
                number = report.get("records")
            rows.append(
                {
                    "split": split,
                    "file": file_name(file.path),
                    "records": words.count(number),
                    "sha256": writing.code(file.sha256),
                }
            )
    return rows


def score_rows(facts: RunFacts) -> list[Values]:
    before, after = ((facts.scores or {}).get(who) or {} for who in ("base", "tuned"))
    return [
        {
            "name": label,
            "before": words.number(before.get(name)),
            "after": words.number(after[name]),
            "lower": name in _LOWER_IS_BETTER,
        }
        for name, label in _NAMES.items()
        if after.get(name) is not None
    ]


def checks(facts: RunFacts, products: Sequence[Product]) -> list[Values]:
    """A row for each figure that the stages behind the products measured: drift, bits, perplexity, same
    answers."""
    told = {maker for name, maker in _MAKERS.items() if name in products}
    return [
        {"product": product, "name": figure.label, "value": figure.text, "remark": figure.remark}
        for product, figures in product_figures.by_product(
            product_figures.figures(facts.plan, facts.manifests)
        )
        for figure in figures
        if figure.stage in told and figure.label != "Size"
    ]


def contents(where: Mapping[Product, str], files: Sequence[PublishedFile]) -> list[Values]:
    """A row a product: what it is, the folder that it lies in, bytes."""
    rows = []
    others = [folder for folder in where.values() if folder]
    for name, folder in where.items():
        inside = [
            file
            for file in files
            if file.path.startswith(folder)
            and (folder or not any(file.path.startswith(other) for other in others))
            and file.path != CURVES
        ]
        size = words.size(sum(file.size_bytes for file in inside))
        rows.append({"what": settings.PRODUCTS[name], "folder": writing.code(folder or "./"), "size": size})
    return rows


def _results(facts: RunFacts) -> list[Values]:
    scores = (facts.scores or {}).get("tuned") or {}
    metrics = [
        {"type": _METRICS.get(name, "rouge"), "name": label, "value": scores[name]}
        for name, label in _NAMES.items()
        if isinstance(scores.get(name), int | float)
    ]
    if not metrics:
        return []
    records = (facts.scores or {}).get("records")
    data = {"name": f"the job's own test split, {records} records", "type": "other"}
    return [{"task": {"type": "text-generation"}, "dataset": data, "metrics": metrics}]


def _spread(rows: Sequence[Values], most: int) -> list[Values]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
