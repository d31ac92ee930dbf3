"""From what a command asks for to its plan."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping

from artifacts.contract import Plan, PrepareParams, StageKind
from launcher.alone import chain, checks
from launcher.alone.chain import Chain, Start
from launcher.alone.given import GivenModel, GivenRun
from launcher.alone.options import Asked, Options, job_of, told
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.machine import Machine
from launcher.plan import DIGESTS, image_stages, profile_values
from launcher.planning import export, hardware, precision, products
from launcher.planning.findings import Findings
from launcher.spec.base_model import ModelSource
from launcher.spec.cluster import Cluster
from launcher.spec.load import Loaded
from launcher.stages import adapter, data, model, original, prepare, sources
from launcher.stages.code import CodeDigests
from launcher.stages.keys import CodeDigest
from launcher.stages.sources import Named, Source


def make(
    asked: Asked,
    cluster: Loaded[Cluster],
    machine: Machine,
    *,
    digests: Digests | None = None,
    check_head: data.CheckHead | None = None,
    code: CodeDigest | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Plan:
    """The plan of one call on `cluster`. Raises UserError with every problem found; arguments as those of
    `launcher.plan.make`."""
    digests = digests or Digests(cluster.value.work_folder / DIGESTS)
    code = code or CodeDigests(digests)
    job = job_of(asked)
    findings = Findings(job, hardware.of(cluster.value, cluster.path.stem, machine))
    images = image_stages(cluster, code, findings.problems)
    start, described = _start(asked, job, digests, findings, environment)
    unquantized = start is not None and start.original is not None
    findings.problems += checks.refusals(asked, described, unquantized=unquantized)
    findings.problems += checks.of_hardware(asked, findings.hardware)
    if asked.command == "quantize" and described.dimensions is not None:
        products.refuse_quantizing(findings, described.dimensions)
    files = data.Found()
    if asked.data:
        files = data.find(_with_splits(job, asked.data), digests, code, check_head)
    findings.problems += [*files.problems, *checks.of_data(asked, files)]
    if findings.problems or start is None:
        raise UserError(findings.problems)
    findings.derived += files.derived

    run = asked.given if isinstance(asked.given, GivenRun) else None
    made = Chain(code, run.plan if run else None)
    if asked.data:
        staged = data.plan(data.params(job.value, files, None), code)
        start = dataclasses.replace(start, data=staged, prepare=None)
    _add(made, asked, start, job, findings, described)
    if findings.problems:
        raise UserError(findings.problems)
    stages = chain.with_ancestors(made, run.complete if run else ())
    digests.save()
    return Plan(
        name=job.value.name,
        cluster=cluster.path.stem,
        backend=cluster.value.backend,
        store=cluster.value.store_uri,
        engine="torchrun",
        stages=images + [stage for stage in stages if stage.kind != StageKind.IMAGE],
        job=told(asked, job.value),
        derived=findings.derived,
        profile=profile_values(cluster.value),
    )


def _start(
    asked: Asked, job: Options, digests: Digests, findings: Findings, environment: Mapping[str, str]
) -> tuple[Start | None, Source]:
    """The first stages, and what is known of the model; None where something is wrong with it."""
    given = asked.given
    if isinstance(given, GivenRun):
        start = chain.of_run(given.plan, given.complete)
        is_twin = start.model.params.twin is not None
        named = original.find(job, digests, rehearse=is_twin, environment=environment)
        findings.problems += named.problems
        if named.params is not None:
            start = dataclasses.replace(start, original=original.plan(named.params))
        return start, checks.model_of(start.model.params, environment)
    trust = job.value.model.trust_remote_code
    if isinstance(given, GivenModel):
        source = _found(given.source, "model", trust, digests, findings, environment)
        return (Start(model=model.taken(StageKind.MODEL, source.params)) if source.params else None), source
    base = _found(given.base, "base", trust, digests, findings, environment)
    trained = adapter.find(given.source, Named("adapter"), digests, environment=environment)
    findings.problems += trained.problems
    if base.params is None or trained.params is None:
        return None, base
    return Start(model=model.taken(StageKind.MODEL, base.params), trained=adapter.plan(trained.params)), base


def _found(
    source: ModelSource,
    name: str,
    trust: bool,
    digests: Digests,
    findings: Findings,
    environment: Mapping[str, str],
) -> Source:
    section = source.model_copy(update={"trust_remote_code": trust})
    found = sources.find(section, Named(name), digests, environment=environment)
    findings.problems += found.problems
    return found


def _with_splits(job: Options, splits: Collection[str]) -> Options:
    """The job with these splits alone: the others are only there because a job needs them."""
    left_out = {split: None for split in ("train", "eval", "test") if split not in splits}
    section = job.value.data.model_copy(update=left_out)
    return Options(job.value.model_copy(update={"data": section}), job.path, job.document)


def _add(
    made: Chain, asked: Asked, start: Start, job: Options, findings: Findings, described: Source
) -> None:
    """The stages of the command."""
    settings = job.value
    if asked.command == "predict":
        if start.data is None or "test" not in start.data.params.splits:
            findings.problems.append(_no_data(asked, "no questions to answer", "FILE: records with answers"))
            return
        number_format = precision.choose(findings)
        chain.predict(made, export.predict_params(settings, number_format), start.data, start)
        return
    if asked.data and start.data is not None:
        made.add(start.data)
    whole = chain.whole(made, start, export.merge_params(settings))
    if asked.command == "export":
        params = dataclasses.replace(export.gguf_params(settings), name=asked.product_name or "model")
        chain.gguf(made, params, whole)
    elif asked.command == "quantize":
        prepared = start.prepare
        if start.data is not None and "train" in asked.data:
            prepared = chain.prepared(made, _prepare_params(job, findings, described), start.data, whole)
        if prepared is None:
            file = "FILE: records like its training data"
            findings.problems.append(_no_data(asked, "no data to calibrate on", file))
            return
        chain.quantize(made, export.quantize_params(settings), whole, prepared)


def _prepare_params(job: Options, findings: Findings, described: Source) -> PrepareParams:
    """One record a sequence, as long as calibration takes them and the model reads them."""
    wanted = job.value.quantize.calibration_length
    longest = described.dimensions.max_positions if described.dimensions else 0
    length = min(wanted, longest or wanted)
    reason = "quantize.calibration_length" if length == wanted else "the longest that the model reads"
    findings.say("training.max_length", length, reason)
    template = prepare.template_params(job.value.template)
    return PrepareParams(max_length=length, packing=False, template=template)


def _no_data(asked: Asked, why: str, file: str) -> Problem:
    return Problem(where="", what=f"slipway {asked.command}", why=why, way_out=f"add --data {file}")
