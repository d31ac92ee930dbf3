"""`--rehearse`: the same job, small enough to try on a laptop. Same architecture class, tokenizer, template,
method, strategy and code path; scaled-down dimensions (`launcher.stages.model`), a few records and steps."""

from __future__ import annotations

import dataclasses

from artifacts.contract import Derived
from launcher.planning.hardware import Hardware
from launcher.planning.precision import has_precision
from launcher.planning.resolve import Resolved
from launcher.spec.job import Job
from launcher.spec.load import Loaded

RECORDS_PER_SPLIT = 64
STEPS = 8
MAX_LENGTH = 256  # tokens
MAX_WORKERS = 2
WARMUP_SHARE = 0.25  # of those steps, where the job warms up by steps
ACCUMULATION = 2  # passes per optimizer step, so that accumulation is rehearsed too
ANSWERS = 8
ANSWER_TOKENS = 16
#: A few steps leave a model that has learnt next to nothing: its perplexity bounds nothing.
#: Groups as small as they come fit a twin's layers.
_QUANTIZE = {
    "group_size": 32,
    "calibration_sequences": 8,
    "calibration_length": MAX_LENGTH,
    "max_perplexity_increase": 1e9,
}
_SUFFIX = "-rehearsal"
_NAME_LENGTH = 30


def of(job: Loaded[Job], hardware: Hardware) -> Loaded[Job]:
    """`job` with its lengths cut, for `hardware`."""
    return dataclasses.replace(job, value=_small(job.value, hardware))


def _small(job: Job, hardware: Hardware) -> Job:
    training, interval = job.training, float(STEPS // 2)
    workers = min(job.compute.workers or MAX_WORKERS, hardware.natural().workers, MAX_WORKERS)
    precision = training.precision
    if precision != "auto" and not has_precision(hardware.gpu, precision):
        precision = "auto"
    updates = {
        "epochs": None,
        "steps": min(training.steps or STEPS, STEPS),
        "warmup_steps": None,
        "warmup_share": WARMUP_SHARE if training.warmup_steps else training.warmup_share,
        "global_batch_size": ACCUMULATION * workers,
        "global_batch_tokens": None,
        "micro_batch_size": 1,
        "max_length": min(training.max_length, MAX_LENGTH),
        "precision": precision,
        "evaluate_every": interval,
        "save_every": interval,
        "log_every": 1,
    }
    predict = {
        "limit": min(job.predict.limit or ANSWERS, ANSWERS),
        "max_new_tokens": min(job.predict.max_new_tokens, ANSWER_TOKENS),
    }
    return job.model_copy(
        update={
            "name": job.name[: _NAME_LENGTH - len(_SUFFIX)].rstrip("-") + _SUFFIX,
            "training": training.model_copy(update=updates),
            "predict": job.predict.model_copy(update=predict),
            "quantize": job.quantize.model_copy(update=_QUANTIZE),
            "after": job.after and [stage for stage in job.after if stage != "publish"],
            "compute": job.compute.model_copy(update={"workers": workers, "memory": None}),
        }
    )


def derived(job: Job) -> list[Derived]:
    """What the rehearsal `job` cut, for the plan."""
    training = job.training
    each = f"{training.steps} steps of {training.global_batch_size} sequences of {training.max_length} tokens"
    cut = f"{RECORDS_PER_SPLIT} records of each split, {job.compute.workers} workers, {each}"
    twin = "a twin: the model's architecture and tokenizer, scaled-down dimensions, random weights"
    if job.model.twin is not None:
        twin = "the job's own twin, as it is"
    return [
        Derived(field="rehearsal", value=True, reason=cut),
        Derived(field="rehearsal.model", value="twin", reason=twin),
    ]


def unquantized(resolved: Resolved) -> Resolved:
    """`resolved` as it is for a twin: one of a GPTQ model holds plain weights."""
    if resolved.train.quantization != "gptq":
        return resolved
    return dataclasses.replace(resolved, train=dataclasses.replace(resolved.train, quantization="none"))
