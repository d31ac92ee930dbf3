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
    Engine,
    MergeParams,
    ModelParams,
    Plan,
    PredictParams,
    PrepareParams,
    StagePlan,
    TrainParams,
)
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.machine import Machine
from launcher.planning import cluster_part, hardware, rehearsal
from launcher.planning.resolve import Resolver
from launcher.spec.cluster import Cluster
from launcher.spec.job import After, Job
from launcher.spec.kubernetes import KubernetesCluster
from launcher.spec.load import Loaded
from launcher.stages import data, export, image, model, prepare, train
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
    resolver = Resolver(job, nodes)
    found = data.find(job, digests, code, check_head)
    source = model.find(job, digests, rehearse=rehearse, environment=environment)
    resolver.problems += [*found.problems, *source.problems]
    engine, after = resolver.engine(), resolver.after()
    image_stages = _image_stages(cluster, code, resolver.problems)
    train_params = resolver.train_params(source.dimensions, fresh)
    if resolver.problems or train_params is None or source.params is None:
        raise UserError(resolver.problems)

    limit = rehearsal.RECORDS_PER_SPLIT if rehearse else None
    data_params = data.params(job.value, found, limit)
    stages = image_stages + _stages(job.value, data_params, source.params, train_params, after, code)
    derived = [*found.derived, *resolver.derived]
    if isinstance(cluster.value, KubernetesCluster):
        derived += cluster_part.derived(cluster.value, train_params.world_size, source)
    digests.save()
    return Plan(
        name=job.value.name,
        cluster=cluster.path.stem,
        backend=cluster.value.backend,
        store=cluster.value.store_uri,
        engine=engine,
        stages=stages,
        job=_resolved(job.value, train_params, engine, after),
        derived=[*(rehearsal.derived(job.value) if rehearse else []), *derived],
        profile=_profile(cluster.value),
    )


def _profile(cluster: Cluster) -> dict[str, Any]:
    """What whoever starts pods reads back; a local plan needs none."""
    return cluster.model_dump(mode="json") if isinstance(cluster, KubernetesCluster) else {}


def _image_stages(cluster: Loaded[Cluster], code: CodeDigest, problems: list[Problem]) -> list[StagePlan]:
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
    train_params: TrainParams,
    after: list[After],
    code: CodeDigest,
) -> list[StagePlan]:
    data_stage = data.plan(data_params, code)
    model_stage = model.plan(model_params, data_stage, code)
    # Not the job's seed: it would tokenize the same records again, to no gain.
    prepare_params = PrepareParams(
        max_length=job.training.max_length,
        packing=job.training.packing,
        template=prepare.template_params(job.template),
        train_on=job.training.train_on,
    )
    prepared = prepare.plan(prepare_params, data_stage, model_stage, code)
    trained = train.plan(train_params, model_stage, prepared, code)
    stages = [data_stage, model_stage, prepared, trained]
    if "merge" in after:
        merge_params = MergeParams(max_shard_size_bytes=job.merge.max_shard_size_bytes)
        stages.append(export.merge(merge_params, model_stage, trained, code))
    if "predict" in after:
        predict_params = PredictParams(
            max_new_tokens=job.predict.max_new_tokens,
            batch_size=job.predict.batch_size,
            limit_records=job.predict.limit,
            base=job.predict.base,
            precision=train_params.precision,
        )
        stages.append(export.predict(predict_params, data_stage, model_stage, stages[-1], code))
    return stages


def _resolved(job: Job, params: TrainParams, engine: Engine, after: list[After]) -> dict[str, Any]:
    """The job with what it left out filled in, as plain values: itself a job, with the same plan."""
    training = {
        "epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "warmup_share": params.warmup_share,
        "global_batch_size": params.sequences_per_step,
        "global_batch_tokens": None,  # the same in tokens
        "micro_batch_size": params.micro_batch_size,
        "precision": params.precision,
        "gradient_checkpointing": params.gradient_checkpointing,
    }
    sections = {
        "method": {"alpha": params.lora.alpha} if params.lora else {},
        "training": training,
        "strategy": {"type": params.strategy, "offload": params.offload},
        "compute": {"workers": params.world_size, "accelerator": params.accelerator},
    }
    filled: dict[str, Any] = {
        name: getattr(job, name).model_copy(update=values) for name, values in sections.items()
    }
    resolved = job.model_copy(update={**filled, "engine": engine, "after": after})
    return resolved.model_dump(mode="json", exclude_none=True, exclude_unset=True)
