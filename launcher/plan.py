"""job + cluster + machine -> plan: everything resolved that can be known offline, with a reason for each value.

`make` is pure but for reading local files: the job's data, its model folder, the code that makes each stage.
It uses no network and writes nothing but the cache of digests, and that only when the plan is good.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from artifacts.contract import (
    DataParams,
    Derived,
    LoraParams,
    MergeParams,
    Plan,
    PredictParams,
    PrepareParams,
    StageKind,
    StagePlan,
    TrainParams,
)
from launcher import batch, catalog, rehearsal, sizing
from launcher.catalog import Accelerator, Precision
from launcher.digests import Digests
from launcher.errors import Problem, UserError
from launcher.machine import Machine
from launcher.memory import Offload, Strategy, gigabytes
from launcher.spec.cluster import Cluster
from launcher.spec.job import Job
from launcher.spec.load import Loaded
from launcher.stages import data, export, model, prepare, train
from launcher.stages.code import CodeDigests
from launcher.stages.keys import CodeDigest

DEFAULT_EPOCHS = 3.0
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
DEFAULT_WARMUP_SHARE = 0.03
CPU_WORKERS = 2
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
    """The plan of `job` on `cluster`. `fresh` salts the training's key, for a new run on purpose; `digests`,
    `check_head` and `code` are how local files are hashed and read. Raises UserError with every problem."""
    digests = digests or Digests(cluster.value.work_folder / DIGESTS)
    code = code or CodeDigests(digests)
    made = _Making(job, machine)
    if rehearse:
        small = rehearsal.rehearsal_of(job.value, workers=made.workers(), on_gpu=bool(machine.gpus))
        job = Loaded(small, job.path, job.document, job.overridden)
        made = _Making(job, machine, derived=rehearsal.derived(small))
    found = data.find(job, digests, check_head)
    source = model.find(job, digests, rehearse=rehearse, environment=environment)
    made.derived += found.derived
    made.problems += [*found.problems, *source.problems]
    train_params = made.train_params(source, fresh)
    after = made.after()
    if made.problems or train_params is None or source.params is None:
        raise UserError(made.problems)

    limit = rehearsal.RECORDS_PER_SPLIT if rehearse else None
    data_params = DataParams(splits=found.splits, on_error=job.value.data.on_error, limit_records=limit)
    data_stage = data.plan(data_params, code)
    model_stage = model.plan(source.params, data_stage, code)
    stages = [data_stage, model_stage, *made.later_stages(data_stage, model_stage, train_params, after, code)]
    digests.save()
    return Plan(
        name=job.value.name,
        cluster=cluster.path.stem,
        backend=cluster.value.backend,
        store=cluster.value.store_uri,
        engine=made.engine(),
        stages=stages,
        job=made.resolved_job(train_params, after),
        derived=made.derived,
    )


@dataclass
class _Making:
    """A plan being made: the job, the machine, and the reasons and problems found so far."""

    loaded: Loaded[Job]
    machine: Machine
    derived: list[Derived] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def job(self) -> Job:
        return self.loaded.value

    def say(self, field: str, value: Any, reason: str) -> None:
        self.derived.append(Derived(field=field, value=value, reason=reason))

    def refuse(self, field: str, value: Any, why: str, way_out: str = "") -> None:
        where = self.loaded.where(field)
        self.problems.append(Problem(where=where, what=f"{field}: {value}", why=why, way_out=way_out))

    def engine(self) -> Literal["torchrun", "ray"]:
        if self.job.engine != "auto":
            return self.job.engine
        self.say("engine", "torchrun", "one machine: reaches the first step sooner than ray, and trains the same")
        return "torchrun"

    def workers(self) -> int:
        """How many the job runs with here, without a word."""
        if self.job.compute.workers is not None:
            return self.job.compute.workers
        return len(self.machine.gpus) or min(CPU_WORKERS, self.machine.cores)

    def _workers(self) -> int:
        workers, gpus, cores = self.workers(), len(self.machine.gpus), self.machine.cores
        if self.job.compute.workers is None:
            reason = (
                f"one for each GPU of this machine: {self.machine.gpus[0].name}"
                if gpus
                else f"no GPU here: {CPU_WORKERS} CPU workers, at most one for each of {cores} cores"
            )
            self.say("compute.workers", workers, reason)
        elif gpus and workers > gpus:
            way_out = f"write {gpus} or fewer, or leave it out"
            self.refuse("compute.workers", workers, f"this machine has {gpus} GPUs, one for each worker", way_out)
        return workers

    def _accelerator(self) -> Accelerator | None:
        """The GPU type in the catalog; None on CPU and for a GPU that it does not know."""
        wanted = self.job.compute.accelerator
        if wanted is not None and catalog.find(wanted) is None:
            known = ", ".join(catalog.names())
            self.refuse("compute.accelerator", wanted, "no such GPU type in the catalog", f"one of {known}")
        if not self.machine.gpus:
            if wanted is not None:
                self.say("compute.accelerator", None, f"this machine has no {wanted}: the job runs on its cores")
            return None
        name = self.machine.gpus[0].name
        here = catalog.find(name)
        if here is None:
            self.say("compute.accelerator", None, f"{name} is not in the catalog: MFU is not reported")
        elif wanted is None or catalog.find(wanted) != here:
            instead = f", not {wanted}" if wanted else ""
            self.say("compute.accelerator", here.name, f"this machine has {name}{instead}")
        return here

    def _precision(self, accelerator: Accelerator | None) -> Precision:
        wanted = self.job.training.precision
        if not self.machine.gpus:
            if wanted == "fp16":
                self.refuse("training.precision", wanted, "fp16 needs a GPU", "use bf16, fp32 or auto")
            elif wanted == "auto":
                self.say("training.precision", "fp32", "CPU workers: exact, and as fast as most cores go")
            return "fp32" if wanted == "auto" else wanted
        capability = self.machine.gpus[0].compute_capability or (accelerator and accelerator.compute_capability)
        has_bf16 = capability is None or capability >= (8, 0)
        name = self.machine.gpus[0].name
        if wanted == "bf16" and not has_bf16:
            self.refuse("training.precision", wanted, f"{name} has no bfloat16", "use fp16, fp32 or auto")
        if wanted != "auto":
            return wanted
        precision: Precision = "bf16" if has_bf16 else "fp32"
        reason = f"{name} has bfloat16" if has_bf16 else f"{name} has no bfloat16"
        self.say("training.precision", precision, reason)
        return precision

    def train_params(self, source: model.Source, fresh: str | None) -> TrainParams | None:
        """Everything that the training needs; None where the problems leave it open."""
        job, training = self.job, self.job.training
        workers = self._workers()
        accelerator = self._accelerator()
        precision = self._precision(accelerator)
        self._check_model(source)
        lora = self._lora()
        sequences = self._global_batch(workers)
        if sequences is None:
            return None
        sized = self._size(source, workers, sequences, precision)
        accumulation = sequences // (workers * sized.micro_batch_size)
        self.say(
            "training.gradient_accumulation_steps",
            accumulation,
            batch.arithmetic(sized.micro_batch_size, accumulation, workers),
        )
        return TrainParams(
            method=job.method.type,
            lora=lora,
            epochs=self._epochs(),
            steps=training.steps,
            learning_rate=self._learning_rate(),
            schedule=training.schedule,
            warmup_steps=training.warmup_steps,
            warmup_share=self._warmup_share(),
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            micro_batch_size=sized.micro_batch_size,
            gradient_accumulation_steps=accumulation,
            world_size=workers,
            max_length=training.max_length,
            precision=precision,
            gradient_checkpointing=sized.gradient_checkpointing,
            seed=training.seed,
            evaluate_every=_interval(training.evaluate_every),
            save_every=_interval(training.save_every),
            log_every_steps=training.log_every,
            keep=training.keep,
            strategy=sized.strategy,
            offload=sized.offload,
            accelerator=accelerator.name if accelerator else None,
            peak_flops_per_second=accelerator.peak_flops_per_second(precision) if accelerator else None,
            fresh=fresh,
        )

    def _check_model(self, source: model.Source) -> None:
        """What the model's config rules out."""
        size, targets = source.dimensions, self.job.method.target_modules
        if size is None:
            return
        length = self.job.training.max_length
        if size.max_positions and length > size.max_positions:
            why = f"the model has {size.max_positions:,} positions"
            self.refuse("training.max_length", length, why, f"use {size.max_positions} or less")
        named = [] if isinstance(targets, str) else targets
        tied = sorted({"lm_head", "embed_tokens"} & set(named))
        if self.job.method.type == "lora" and size.tie_embeddings and tied:
            why = f"the model shares one matrix for embed_tokens and lm_head; an adapter on {tied[0]} can't be merged"
            self.refuse("method.target_modules", tied[0], why, f"leave {tied[0]} out, or use method full")

    def _lora(self) -> LoraParams | None:
        method = self.job.method
        if method.type != "lora":
            return None
        alpha = method.alpha
        if alpha is None:
            alpha = 2 * method.rank
            self.say("method.alpha", alpha, f"2 × rank {method.rank}")
        return LoraParams(
            rank=method.rank, alpha=alpha, dropout=method.dropout, target_modules=method.target_modules
        )

    def _epochs(self) -> float | None:
        training = self.job.training
        if training.epochs is None and training.steps is None:
            self.say("training.epochs", DEFAULT_EPOCHS, "the default")
            return DEFAULT_EPOCHS
        return training.epochs

    def _learning_rate(self) -> float:
        if self.job.training.learning_rate is not None:
            return self.job.training.learning_rate
        method = self.job.method.type
        rate = DEFAULT_LEARNING_RATE[method]
        self.say("training.learning_rate", rate, f"the default of method {method}")
        return rate

    def _warmup_share(self) -> float | None:
        training = self.job.training
        if training.warmup_steps is None and training.warmup_share is None:
            self.say("training.warmup_share", DEFAULT_WARMUP_SHARE, "the default, of all steps")
            return DEFAULT_WARMUP_SHARE
        return training.warmup_share

    def _global_batch(self, workers: int) -> int | None:
        """Sequences per optimizer step; None where they do not divide."""
        training, name = self.job.training, "training.global_batch_size"
        unit = workers * (training.micro_batch_size or 1)
        if training.global_batch_size is not None:
            where = self.loaded.where(name)
            problem = batch.indivisible(where, training.global_batch_size, workers, training.micro_batch_size)
            self.problems += [problem] if problem else []
            return None if problem else training.global_batch_size
        if training.global_batch_tokens is None:
            sequences, reason = batch.default_sequences(unit)
            self.say(name, sequences, reason)
            return sequences
        tokens = training.global_batch_tokens
        found = batch.sequences_of_tokens(tokens, training.max_length, unit)
        if found is None:
            why = f"a step is {unit} sequences × {training.max_length:,} tokens at least"
            way_out = f"use {unit * training.max_length} or more, or fewer workers"
            self.refuse("training.global_batch_tokens", tokens, why, way_out)
            return None
        self.say(name, *found)
        return found[0]

    def _size(
        self, source: model.Source, workers: int, sequences: int, precision: Precision
    ) -> sizing.Sizing:
        job, size, gpus = self.job, source.dimensions, self.machine.gpus
        trainable = 0
        if size is not None:
            adapters = size.lora_parameters(job.method.rank, job.method.target_modules)
            trainable = size.parameters if job.method.type == "full" else adapters
        request = sizing.Request(
            dimensions=size,
            trainable=trainable,
            precision=precision,
            workers=workers,
            sequences_per_worker=sequences // workers,
            max_length=job.training.max_length,
            strategy=cast("Strategy | Literal['auto']", job.strategy.type),
            offload=cast("Offload", job.strategy.offload),
            gradient_checkpointing=job.training.gradient_checkpointing,
            micro_batch_size=job.training.micro_batch_size,
            gpu_memory_bytes=min(gpu.memory_bytes for gpu in gpus) if gpus else None,
            host_memory_bytes=self.machine.memory_bytes,
        )
        sized = sizing.choose(request)
        self.derived += sized.derived
        if sized.estimate is not None:
            self.derived += sizing.memory_lines(request, sized.estimate)
        if sized.misfit is not None:
            way_out = "use method lora, a shorter training.max_length or a smaller model; --rehearse tries the job here"
            self.refuse("strategy.type", job.strategy.type, f"does not fit: {sized.misfit}", way_out)
        return sized

    def after(self) -> list[Literal["merge", "predict"]]:
        """The stages after training, in their order."""
        job = self.job
        wanted = job.after
        if wanted is None:
            if job.data.test is None:
                self.say("after", ["merge"], "the default; without data.test there is nothing to predict")
                return ["merge"]
            self.say("after", ["merge", "predict"], "the default where there is data.test")
            return ["merge", "predict"]
        if "predict" in wanted and "merge" not in wanted and job.method.type == "lora":
            self.say("after", ["merge", "predict"], "predict answers with the merged model")
            return ["merge", "predict"]
        return sorted(wanted)  # merge comes before predict

    def later_stages(
        self,
        data_stage: StagePlan,
        model_stage: StagePlan,
        train_params: TrainParams,
        after: list[Literal["merge", "predict"]],
        code: CodeDigest,
    ) -> list[StagePlan]:
        job = self.job
        # Not the job's seed: packing the same records again for another seed would gain nothing.
        prepare_params = PrepareParams(max_length=job.training.max_length, packing=job.training.packing)
        prepared = prepare.plan(prepare_params, data_stage, model_stage, code)
        trained = train.plan(train_params, model_stage, prepared, code)
        stages = [prepared, trained]
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

    def resolved_job(self, params: TrainParams, after: list[Literal["merge", "predict"]]) -> dict[str, Any]:
        """The job with what was left out filled in, as plain values."""
        job = self.job
        training = job.training.model_copy(
            update={
                "epochs": params.epochs,
                "learning_rate": params.learning_rate,
                "warmup_share": params.warmup_share,
                "global_batch_size": params.micro_batch_size
                * params.gradient_accumulation_steps
                * params.world_size,
                "micro_batch_size": params.micro_batch_size,
                "precision": params.precision,
                "gradient_checkpointing": params.gradient_checkpointing,
            }
        )
        strategy = job.strategy.model_copy(update={"type": params.strategy, "offload": params.offload})
        compute = job.compute.model_copy(update={"workers": params.world_size, "accelerator": params.accelerator})
        method = job.method.model_copy(update={"alpha": params.lora.alpha}) if params.lora else job.method
        resolved = job.model_copy(
            update={
                "training": training,
                "strategy": strategy,
                "compute": compute,
                "method": method,
                "engine": self.job.engine if self.job.engine != "auto" else "torchrun",
                "after": after,
            }
        )
        return resolved.model_dump(mode="json", exclude_none=True)


def _interval(value: float | Literal["epoch"]) -> float | None:
    return None if value == "epoch" else value
