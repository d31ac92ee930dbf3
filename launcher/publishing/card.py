"""The model card: README.md of what is published, written from the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from artifacts.contract import Product, PublishParams, StageKind, StagePlan
from artifacts.manifest import Manifest
from launcher.publishing import base_model, loading, metadata, settings, writing
from launcher.publishing.curves import FILE as CURVES
from launcher.publishing.licence import Licence
from launcher.publishing.privacy import file_name, public_job
from launcher.publishing.products import PublishedFile, folders, main_product
from launcher.publishing.target import Target
from launcher.publishing.writing import Markup
from launcher.reporting import products as product_figures
from launcher.reporting import provenance, words
from launcher.reporting.collect import RunFacts
from launcher.reporting.data_view import split_order

FILE = "README.md"
_TEMPLATE = "card.md.j2"
#: The stages that measure something of a product.
_MAKERS: dict[Product, str] = {"model": "merge", "quantized": "quantize", "gguf": "gguf"}
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
    where, main = folders(products), main_product(params.products)
    paths = [file.path for file in files]
    values = {
        "front_matter": Markup(writing.yaml(metadata.of(facts, params.products, licence))),
        "name": facts.plan.name,
        "summary": Markup(settings.summary(facts.plan, params.products)),
        "base": base_model.told(facts.plan, main),
        "contents": contents(where, files),
        "snippets": loading.snippets(
            target, where, paths, base_model.hub_name(facts.plan, "adapter"), facts.plan.name
        ),
        "data_title": "Data" if facts.plan.has(StageKind.TRAIN) else "Data that calibrated or tested it",
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
        for name, label in metadata.SCORE_NAMES.items()
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


def _spread(rows: Sequence[Values], most: int) -> list[Values]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
