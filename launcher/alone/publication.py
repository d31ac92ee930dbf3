"""The plan of `slipway publish`: what a run has made, and its publication."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from artifacts.contract import Plan, Product, PublishParams, StageKind, StagePlan
from launcher.alone.given import GivenRun
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.plan import DIGESTS, image_stages, profile_values
from launcher.spec import explain
from launcher.spec.cluster import Cluster
from launcher.spec.load import Loaded
from launcher.spec.products import Publish
from launcher.spec.words import listed, shown_path
from launcher.stages import export
from launcher.stages.code import CodeDigests
from launcher.stages.keys import CodeDigest

#: What the card tells of, beside the products.
_TOLD = (StageKind.DATA, StageKind.TRAIN, StageKind.PREDICT)


def make(
    given: GivenRun, options: dict[str, Any], cluster: Loaded[Cluster], *, code: CodeDigest | None = None
) -> Plan:
    """The run's own complete stages, and one that publishes. `options`: fields of a job's section `publish`;
    without `products` all that the run has made. Raises UserError with every mistake."""
    section, findings = explain.check(Publish, options)
    problems = [
        Problem(where="", what=f"publish.{shown_path(one.path)}", why=one.why, way_out=one.way_out)
        for one in findings
    ]
    digests = Digests(cluster.value.work_folder / DIGESTS)
    code = code or CodeDigests(digests)
    images = image_stages(cluster, code, problems)
    made = products(given.plan, given.complete)
    if section is not None:
        problems += _unmade(given.plan, section, made)
    if problems or section is None or section.to is None:
        raise UserError(problems)
    chosen: list[Product] = section.products or default(made)
    params = PublishParams(to=section.to, products=chosen, private=section.private, license=section.license)
    kept = [
        stage
        for stage in given.plan.stages
        if stage.kind in given.complete and stage.kind not in (StageKind.IMAGE, StageKind.PUBLISH)
    ]
    inputs: dict[str, StagePlan] = {name: made[name] for name in chosen}
    inputs |= {str(stage.kind): stage for stage in kept if stage.kind in _TOLD}
    published = export.publish(params, inputs, code)
    digests.save()
    job = given.plan.job | {"publish": section.model_dump(mode="json", exclude_none=True)}
    return dataclasses.replace(
        given.plan,
        cluster=cluster.path.stem,
        backend=cluster.value.backend,
        store=cluster.value.store_uri,
        stages=[*images, *kept, published],
        job=job,
        profile=profile_values(cluster.value),
    )


def products(run: Plan, complete: Collection[StageKind]) -> dict[Product, StagePlan]:
    """What a run has made that can be published."""
    found = {stage.kind: stage for stage in run.stages if stage.kind in complete}
    train = found.get(StageKind.TRAIN)
    whole = train is not None and train.params.method in ("full", "partial")
    sources: dict[Product, StagePlan | None] = {
        "model": found.get(StageKind.MERGE) or (train if whole else None),
        "adapter": None if whole else train,
        "quantized": found.get(StageKind.QUANTIZE),
        "gguf": found.get(StageKind.GGUF),
    }
    return {name: stage for name, stage in sources.items() if stage is not None}


def default(made: Collection[Product]) -> list[Product]:
    """What is published where nothing is said: all, but an adapter only where there is no whole model."""
    return [name for name in made if name != "adapter" or "model" not in made]


def _unmade(run: Plan, section: Publish, made: Collection[Product]) -> list[Problem]:
    if not made:
        why, way_out = "it has made nothing to publish", f"slipway resume {run.run_id}"
        return [Problem(where="", what=f"run {run.run_id}", why=why, way_out=way_out)]
    return [
        Problem(where="", what=f"product {name}", why=f"the run made {listed(list(made))}", way_out="")
        for name in section.products or []
        if name not in made
    ]
