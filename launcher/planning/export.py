"""The stages after training, from a job's sections."""

from __future__ import annotations

from typing import NamedTuple

from artifacts.contract import (
    GgufParams,
    MergeParams,
    Precision,
    PredictParams,
    PublishParams,
    QuantizeParams,
    StageKind,
    StagePlan,
)
from launcher.planning.resolve import Resolved
from launcher.spec.job import Job
from launcher.stages import export
from launcher.stages.keys import CodeDigest


class Trained(NamedTuple):
    """The stages up to training."""

    data: StagePlan
    model: StagePlan
    prepare: StagePlan
    train: StagePlan
    original: StagePlan | None = None  # what a quantized model was made of


def chain(job: Job, trained: Trained, resolved: Resolved, code: CodeDigest) -> list[StagePlan]:
    """The stages of `after`, in order. Each takes the merged model where there is one."""
    after, made = resolved.after, dict[StageKind, StagePlan]()
    whole = trained.train
    if "merge" in after:
        base = trained.original or trained.model
        whole = made[StageKind.MERGE] = export.merge(merge_params(job), base, trained.train, code)
    if "quantize" in after:
        made[StageKind.QUANTIZE] = export.quantize(quantize_params(job), whole, trained.prepare, code)
    if "gguf" in after:
        made[StageKind.GGUF] = export.gguf(gguf_params(job), whole, code)
    if "predict" in after:
        params = predict_params(job, resolved.train.precision)
        made[StageKind.PREDICT] = export.predict(params, trained.data, trained.model, whole, code)
    if "publish" in after:
        sources = {
            "model": whole,
            "adapter": trained.train,
            "quantized": made.get(StageKind.QUANTIZE),
            "gguf": made.get(StageKind.GGUF),
        }
        told = {"data": trained.data, "train": trained.train, "predict": made.get(StageKind.PREDICT)}
        inputs = {name: sources[name] for name in resolved.published} | told
        known = {name: stage for name, stage in inputs.items() if stage is not None}
        made[StageKind.PUBLISH] = export.publish(publish_params(job, resolved), known, code)
    return list(made.values())


def merge_params(job: Job) -> MergeParams:
    return MergeParams(
        max_shard_size_bytes=job.merge.max_shard_size_bytes,
        max_drift=job.merge.max_drift,
    )


def quantize_params(job: Job) -> QuantizeParams:
    wanted = job.quantize
    return QuantizeParams(
        bits=wanted.bits,
        group_size=wanted.group_size,
        desc_act=wanted.desc_act,
        damping=wanted.damping,
        calibration_sequences=wanted.calibration_sequences,
        calibration_length=wanted.calibration_length,
        max_perplexity_increase=wanted.max_perplexity_increase,
        seed=wanted.seed,
        trust_remote_code=(job.merge.original or job.model).trust_remote_code,
    )


def gguf_params(job: Job) -> GgufParams:
    return GgufParams(name=job.name, types=list(job.gguf.types), system=job.template.default_system)


def predict_params(job: Job, precision: Precision) -> PredictParams:
    return PredictParams(
        max_new_tokens=job.predict.max_new_tokens,
        batch_size=job.predict.batch_size,
        limit_records=job.predict.limit,
        base=job.predict.base,
        precision=precision,
    )


def publish_params(job: Job, resolved: Resolved) -> PublishParams:
    assert job.publish.to is not None
    return PublishParams(
        to=job.publish.to,
        products=resolved.published,
        private=job.publish.private,
        license=job.publish.license,
    )
