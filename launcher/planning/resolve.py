"""The training of a job, resolved: every value that the job leaves out is derived, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from artifacts.contract import Derived, Engine, LoraParams, Precision, TrainParams
from launcher import catalog
from launcher.catalog import Accelerator
from launcher.dimensions import Dimensions
from launcher.errors import Problem
from launcher.machine import Machine
from launcher.planning import batch, sizing
from launcher.spec.job import After, Job
from launcher.spec.load import Loaded

DEFAULT_EPOCHS = 3.0
DEFAULT_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
DEFAULT_WARMUP_SHARE = 0.03
CPU_WORKERS = 2
#: bfloat16 arithmetic begins with NVIDIA's Ampere.
BF16_CAPABILITY = (8, 0)


@dataclass
class Resolver:
    """What the job leaves open, decided for a machine. Collects the reasons, and every problem on the way."""

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

    def engine(self) -> Engine:
        if self.job.engine != "auto":
            return self.job.engine
        self.say("engine", "torchrun", "one machine: it reaches the first step sooner than ray")
        return "torchrun"

    def after(self) -> list[After]:
        """The stages after training, in their order."""
        wanted = self.job.after
        if wanted is None and self.job.data.test is None:
            self.say("after", ["merge"], "the default; without data.test there is nothing to predict")
            return ["merge"]
        if wanted is None:
            self.say("after", ["merge", "predict"], "the default where there is data.test")
            return ["merge", "predict"]
        if wanted == ["predict"] and self.job.method.type == "lora":
            self.say("after", ["merge", "predict"], "predict answers with the merged model")
            return ["merge", "predict"]
        return sorted(wanted)  # merge comes before predict

    def _workers(self) -> int:
        workers = self.job.compute.workers or natural_worker_count(self.machine)
        gpus, cores = len(self.machine.gpus), self.machine.cores
        if self.job.compute.workers is None:
            reason = f"no GPU here: {CPU_WORKERS} CPU workers, at most one for each of {cores} cores"
            if gpus:
                reason = f"one for each GPU of this machine: {self.machine.gpus[0].name}"
            self.say("compute.workers", workers, reason)
        elif gpus and workers > gpus:
            why = f"this machine has {gpus} GPUs, and each worker needs one"
            self.refuse("compute.workers", workers, why, f"write {gpus} or fewer, or leave it out")
        return workers

    def _accelerator(self) -> Accelerator | None:
        """The GPU type in the catalog; None on CPU and for a GPU that it does not know."""
        wanted = self.job.compute.accelerator
        if wanted is not None and catalog.find(wanted) is None:
            known = ", ".join(catalog.names())
            self.refuse("compute.accelerator", wanted, "no such GPU type in the catalog", f"one of {known}")
        if not self.machine.gpus:
            if wanted is not None:
                self.say(
                    "compute.accelerator", None, f"no {wanted} here: the job runs on this machine's cores"
                )
            return None
        name = self.machine.gpus[0].name
        here = catalog.find(name)
        if here is None:
            self.say("compute.accelerator", None, f"{name} is not in the catalog: MFU is not reported")
        elif wanted is None or catalog.find(wanted) != here:
            instead = f", not {wanted}" if wanted else ""
            self.say("compute.accelerator", here.name, f"this machine has {name}{instead}")
        return here

    def _precision(self) -> Precision:
        wanted, gpus = self.job.training.precision, self.machine.gpus
        if wanted != "auto" and not has_precision(self.machine, wanted):
            why = f"{gpus[0].name} has no bfloat16" if gpus else "fp16 needs a GPU"
            others = "fp16, fp32" if gpus else "bf16, fp32"
            self.refuse("training.precision", wanted, why, f"use {others} or auto")
        if wanted != "auto":
            return wanted
        if not gpus:
            self.say("training.precision", "fp32", "CPU workers: exact, and as fast as most cores go")
            return "fp32"
        found = has_precision(self.machine, "bf16")
        precision: Precision = "bf16" if found else "fp32"
        self.say("training.precision", precision, f"{gpus[0].name} has {'' if found else 'no '}bfloat16")
        return precision

    def train_params(self, size: Dimensions | None, fresh: str | None) -> TrainParams | None:
        """Everything that the training needs; None where the problems leave it open."""
        job, training = self.job, self.job.training
        workers = self._workers()
        accelerator = self._accelerator()
        precision = self._precision()
        self._attention()
        self._check_model(size)
        lora = self._lora()
        sequences = self._global_batch(workers)
        if sequences is None:
            return None
        sized = self._size(size, workers, sequences, precision)
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

    def _attention(self) -> None:
        """Which kernel: chosen where the ranks start, by what is installed there (`train.loop`)."""
        if self.machine.gpus:
            self.say("attention", "auto", "flash-attention where it is installed, else PyTorch's sdpa")
        else:
            self.say("attention", "sdpa", "PyTorch's own, for CPUs")

    def _check_model(self, size: Dimensions | None) -> None:
        """What the model's config rules out."""
        targets = self.job.method.target_modules
        if size is None:
            return
        length = self.job.training.max_length
        if size.max_positions and length > size.max_positions:
            why = f"the model has {size.max_positions:,} positions"
            self.refuse("training.max_length", length, why, f"use {size.max_positions} or less")
        named = [] if isinstance(targets, str) else targets
        tied = sorted({"lm_head", "embed_tokens"} & set(named))
        if self.job.method.type == "lora" and size.tie_embeddings and tied:
            why = "the model's embed_tokens and lm_head are one matrix, so an adapter on it can't be merged"
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
        self, size: Dimensions | None, workers: int, sequences: int, precision: Precision
    ) -> sizing.Sizing:
        job, gpus = self.job, self.machine.gpus
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
            strategy=job.strategy.type,
            offload=job.strategy.offload,
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
            way_out = "use method lora, a shorter max_length or a smaller model; --rehearse tries it here"
            self.refuse("strategy.type", job.strategy.type, f"does not fit: {sized.misfit}", way_out)
        return sized


def natural_worker_count(machine: Machine) -> int:
    """One for each GPU, else a few on the cores."""
    return len(machine.gpus) or min(CPU_WORKERS, machine.cores)


def has_precision(machine: Machine, precision: Precision) -> bool:
    """Whether `machine` computes in it. A GPU of which nothing is known is taken for a new one."""
    if not machine.gpus:
        return precision != "fp16"
    gpu = machine.gpus[0]
    known = catalog.find(gpu.name)
    capability = gpu.compute_capability or (known.compute_capability if known else BF16_CAPABILITY)
    return precision != "bf16" or capability >= BF16_CAPABILITY


def _interval(value: float | Literal["epoch"]) -> float | None:
    return None if value == "epoch" else value
