"""`--rehearse`: the same job, small enough to try on a laptop. Same architecture class, tokenizer, template,
method, strategy and code path; scaled-down dimensions (`launcher.stages.model`), a few records and steps."""

from __future__ import annotations

from artifacts.contract import Derived
from launcher.spec.job import Job

RECORDS_PER_SPLIT = 64
STEPS = 8
MAX_LENGTH = 256  # tokens
MAX_WORKERS = 2
ACCUMULATION = 2  # passes per optimizer step, so that accumulation is rehearsed too
ANSWERS = 8
ANSWER_TOKENS = 16
_SUFFIX = "-rehearsal"
_NAME_LENGTH = 30


def rehearsal_of(job: Job, *, workers: int, on_gpu: bool) -> Job:
    """`job` with its lengths cut; `workers` is how many this machine would use."""
    workers = min(workers, MAX_WORKERS)
    training, intervals = job.training, STEPS // 2
    precision = "auto" if training.precision == "fp16" and not on_gpu else training.precision
    updates = {
        "epochs": None,
        "steps": min(training.steps or STEPS, STEPS),
        "warmup_steps": None,
        "warmup_share": training.warmup_share if training.warmup_steps is None else 0.25,
        "global_batch_size": ACCUMULATION * workers,
        "global_batch_tokens": None,
        "micro_batch_size": 1,
        "max_length": min(training.max_length, MAX_LENGTH),
        "precision": precision,
        "evaluate_every": float(intervals),
        "save_every": float(intervals),
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
            "compute": job.compute.model_copy(update={"workers": workers, "memory": None}),
        }
    )


def derived(job: Job) -> list[Derived]:
    """What the rehearsal `job` cut, for the plan."""
    training = job.training
    length = f"{training.steps} steps of {training.global_batch_size} sequences, {training.max_length} tokens each"
    return [
        Derived(field="rehearsal", value=True, reason=f"{RECORDS_PER_SPLIT} records of each file; {length}"),
        Derived(field="rehearsal.model", value="twin", reason="same architecture and tokenizer, random weights"),
    ]
