"""job + cluster + machine -> plan: everything that can be known offline, resolved and with its reason.

`make` is pure but for reading local files: the job's data, its model folder, the code that makes each stage.
It uses no network, also where the stages run on a cluster, whose profile says what its nodes are; and it
writes nothing but the cache of digests, and that only when the plan is good.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from artifacts.contract import (
    DataParams,
    ModelParams,
    Plan,
    PrepareParams,
    StagePlan,
    TrainParams,
)
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.machine import Machine
from launcher.planning import cluster_part, export, hardware, rehearsal, requantizing
from launcher.planning.findings import Findings
from launcher.planning.resolve import Resolved, resolve
from launcher.spec.cluster import Cluster
from launcher.spec.job import Job
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.load import Loaded
from launcher.stages import data, image, model, original, prepare, train
from launcher.stages.code import CodeDigests
from launcher.stages.keys import CodeDigest

#: Digests of local files, below the profile's work folder.
DIGESTS = "digests.json"


def make(
    job: Loaded[Job],
    cluster: Loaded[Cluster],
    machine: Machine,
    *,
    rehearse: bool = False,
    fresh: str | None = None,
    digests: Digests | None = None,
    check_head: data.CheckHead | None = None,
    code: CodeDigest | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Plan:
    """The plan of `job` on `cluster`. Raises UserError with every problem found.

    `machine` is this one; it counts where the cluster is this machine. `rehearse` makes the job small enough
    to try out; `fresh` salts the training's key, for a new run on purpose.
    `digests`, `check_head` and `code` are how local files are hashed and read; `environment` says where the
    hub's cache is.
    """
    digests = digests or Digests(cluster.value.work_folder / DIGESTS)
    code = code or CodeDigests(digests)
    nodes = hardware.of(cluster.value, cluster.path.stem, machine)
    if rehearse:
        job = rehearsal.of(job, nodes)
    found = data.find(job, digests, code, check_head)
    source = model.find(job, digests, rehearse=rehearse, environment=environment)
    unquantized = original.find(job, digests, rehearse=rehearse, environment=environment)
    job, settings = requantizing.of(job, source)
    findings = Findings(job, nodes)
    findings.problems += [*found.problems, *source.problems, *unquantized.problems]
    images = image_stages(cluster, code, findings.problems)
    quantized_by = requantizing.quantized_by(job.value, source)
    resolved = resolve(findings, source.dimensions, quantized_by, fresh)
    requantizing.check(findings, source, unquantized, settings, resolved)
    if findings.problems or resolved is None or source.params is None:
        raise UserError(findings.problems)
    if rehearse:
        resolved = rehearsal.unquantized(resolved)

    limit = rehearsal.RECORDS_PER_SPLIT if rehearse else None
    data_params = data.params(job.value, found, limit)
    stages = images + _stages(job.value, data_params, source.params, unquantized.params, resolved, code)
    derived = [*found.derived, *findings.derived]
    if isinstance(cluster.value, KubernetesCluster):
        models = {"upload": source, "upload of the original": unquantized}
        derived += cluster_part.derived(cluster.value, resolved.train.world_size, models)
    digests.save()
    return Plan(
        name=job.value.name,
        cluster=cluster.path.stem,
        backend=cluster.value.backend,
        store=cluster.value.store_uri,
        engine=resolved.engine,
        stages=stages,
        job=_filled(job.value, resolved),
        derived=[*(rehearsal.derived(job.value) if rehearse else []), *derived],
        profile=profile_values(cluster.value),
    )


def profile_values(cluster: Cluster) -> dict[str, Any]:
    """What whoever starts pods reads back; a local plan needs none."""
    return cluster.model_dump(mode="json") if isinstance(cluster, KubernetesCluster) else {}


def image_stages(cluster: Loaded[Cluster], code: CodeDigest, problems: list[Problem]) -> list[StagePlan]:
    """The stage of the image that the others run in, where they run in one."""
    if not isinstance(cluster.value, KubernetesCluster):
        return []
    try:
        return [image.plan(image.params(cluster.value), code)]
    except UserError as error:
        problems += [dataclasses.replace(one, where=cluster.where(one.what)) for one in error.problems]
        return []


def _stages(
    job: Job,
    data_params: DataParams,
    model_params: ModelParams,
    original_params: ModelParams | None,
    resolved: Resolved,
    code: CodeDigest,
) -> list[StagePlan]:
    data_stage = data.plan(data_params, code)
    model_stage = model.plan(model_params, data_stage, code)
    unquantized = original.plan(original_params) if original_params else None
    # Not the job's seed: it would tokenize the same records again, to no gain.
    prepare_params = PrepareParams(
        max_length=job.training.max_length,
        packing=resolved.packing,
        template=prepare.template_params(job.template),
        train_on=job.training.train_on,
    )
    prepared = prepare.plan(prepare_params, data_stage, model_stage, code)
    trained = train.plan(resolved.train, model_stage, prepared, code)
    chain = export.chain(
        job, export.Trained(data_stage, model_stage, prepared, trained, unquantized), resolved, code
    )
    # What a later stage needs from outside is fetched before anything is spent on training.
    return [data_stage, model_stage, *([unquantized] if unquantized else []), prepared, trained, *chain]


def _filled(job: Job, resolved: Resolved) -> dict[str, Any]:
    """The job with what it left out filled in, as plain values: itself a job, with the same plan."""
    params = resolved.train
    training = {
        "epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "warmup_share": params.warmup_share,
        "global_batch_size": params.sequences_per_step,
        "global_batch_tokens": None,  # the same in tokens
        "micro_batch_size": params.micro_batch_size,
        "packing": resolved.packing,
        "precision": params.precision,
        "gradient_checkpointing": params.gradient_checkpointing,
    }
    sections = {
        "method": _filled_method(params),
        "training": training,
        "strategy": {"type": params.strategy, "offload": params.offload},
        "compute": {"workers": params.world_size, "accelerator": params.accelerator},
    }
    filled: dict[str, Any] = {
        name: getattr(job, name).model_copy(update=values) for name, values in sections.items()
    }
    whole = job.model_copy(update={**filled, "engine": resolved.engine, "after": resolved.after})
    return whole.model_dump(mode="json", exclude_none=True, exclude_unset=True)


def _filled_method(params: TrainParams) -> dict[str, Any]:
    if params.lora is not None:
        return {"alpha": params.lora.alpha}
    if params.prompt is None:
        return {}
    values = {
        "virtual_tokens": params.prompt.virtual_tokens,
        "projection_size": params.prompt.projection_size,
    }
    return {name: value for name, value in values.items() if value is not None}
