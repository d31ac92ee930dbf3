"""The training of a job, resolved: every value that the job leaves out is derived, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from artifacts.contract import (
    Derived,
    Engine,
    LoraParams,
    PartialParams,
    Precision,
    PromptParams,
    TrainParams,
)
from launcher import catalog
from launcher.catalog import Accelerator
from launcher.dimensions import Dimensions
from launcher.errors import Problem
from launcher.machine import Gpu
from launcher.memory import bytes_text
from launcher.planning import batch, sizing
from launcher.planning.hardware import ClusterNodes, Hardware
from launcher.spec.job import After, Job
from launcher.spec.load import Loaded

DEFAULT_EPOCHS = 3.0
#: Peak learning rates. Full and LoRA: what the guides of the models use; prompts and adapters learn slower at
#: the same rate (PEFT's examples: 1e-2 to 3e-2; LLaMA-Adapter 9e-3; IA3 8e-3).
DEFAULT_LEARNING_RATE = {
    "full": 2e-5,
    "partial": 2e-5,
    "lora": 2e-4,
    "prefix_tuning": 1e-2,
    "p_tuning_v2": 2e-2,
    "prompt_tuning": 3e-2,
    "llama_adapter": 9e-3,
    "ia3": 8e-3,
}
DEFAULT_VIRTUAL_TOKENS = {"prefix_tuning": 20, "p_tuning_v2": 20, "prompt_tuning": 20, "llama_adapter": 10}
DEFAULT_WARMUP_SHARE = 0.03
#: bfloat16 arithmetic begins with NVIDIA's Ampere.
BF16_CAPABILITY = (8, 0)


@dataclass
class Resolver:
    """What the job leaves open, decided for what it runs on. Collects the reasons, and every problem."""

    loaded: Loaded[Job]
    hardware: Hardware
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
        wanted = self.job.engine
        if isinstance(self.hardware, ClusterNodes):
            if wanted == "torchrun":
                why = "torchrun starts workers on one machine; on a cluster ray starts them, on all nodes"
                self.refuse("engine", wanted, why, "write ray, or leave it out")
            elif wanted == "auto":
                self.say("engine", "ray", "it starts the workers of a cluster's nodes")
            return "ray"
        if wanted != "auto":
            return wanted
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
        natural = self.hardware.natural()
        workers = self.job.compute.workers or natural.workers
        if self.job.compute.workers is None:
            self.say("compute.workers", workers, natural.reason)
        if refusal := self.hardware.refusal(workers):
            self.refuse("compute.workers", workers, refusal.why, refusal.way_out)
        return workers

    def _accelerator(self) -> Accelerator | None:
        """The GPU type in the catalog; None on CPU and for a GPU that it does not know."""
        wanted, gpu, place = self.job.compute.accelerator, self.hardware.gpu, self.hardware.name
        if wanted is not None and catalog.find(wanted) is None:
            known = ", ".join(catalog.names())
            self.refuse("compute.accelerator", wanted, "no such GPU type in the catalog", f"one of {known}")
        elif wanted is not None and isinstance(self.hardware, ClusterNodes):
            self._require_on_cluster(wanted)
        if gpu is None:
            if wanted is not None:
                self.say("compute.accelerator", None, f"no {wanted} here: the job runs on {place}'s cores")
            return None
        here = catalog.find(gpu.name)
        if here is None:
            self.say("compute.accelerator", None, f"{gpu.name} is not in the catalog: MFU is not reported")
        elif wanted is None or catalog.find(wanted) != here:
            instead = f", not {wanted}" if wanted else ""
            self.say("compute.accelerator", here.name, f"{place} has {gpu.name}{instead}")
        return here

    def _require_on_cluster(self, wanted: str) -> None:
        """Who names a GPU type pays for it: nodes with another, or none, are not what was meant."""
        gpu, place = self.hardware.gpu, self.hardware.name
        if gpu is None or catalog.find(wanted) != catalog.find(gpu.name):
            why = f"{place} has {gpu.name if gpu else 'no GPUs'}"
            self.refuse("compute.accelerator", wanted, why, "choose another cluster, or leave it out")

    def _precision(self) -> Precision:
        wanted, gpu = self.job.training.precision, self.hardware.gpu
        if wanted != "auto" and not has_precision(gpu, wanted):
            why = f"{gpu.name} has no bfloat16" if gpu else "fp16 needs a GPU"
            others = "fp16, fp32" if gpu else "bf16, fp32"
            self.refuse("training.precision", wanted, why, f"use {others} or auto")
        if wanted != "auto":
            return wanted
        if gpu is None:
            self.say("training.precision", "fp32", "CPU workers: exact, and as fast as most cores go")
            return "fp32"
        found = has_precision(gpu, "bf16")
        precision: Precision = "bf16" if found else "fp32"
        self.say("training.precision", precision, f"{gpu.name} has {'' if found else 'no '}bfloat16")
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
        if sequences is None or self.hardware.refusal(workers):
            return None  # what so many would need is no news
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
            partial=self._partial(),
            prompt=self._prompt(size),
            quantization=job.method.quantization,
            optimizer=training.optimizer,
            attention=training.attention,
            neftune_alpha=training.neftune_alpha,
            label_smoothing=training.label_smoothing,
            early_stopping=training.early_stopping,
            best_model=training.best_model,
            sharding=job.strategy.sharding,
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
        if self.hardware.gpu:
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
            rank=method.rank,
            alpha=alpha,
            dropout=method.dropout,
            target_modules=method.target_modules,
            rslora=method.rslora,
            dora=method.dora,
            init=method.init,
            plus_ratio=method.plus_ratio,
            modules_to_save=method.modules_to_save,
            trainable_tokens=method.trainable_tokens,
        )

    def _partial(self) -> PartialParams | None:
        method = self.job.method
        if method.type != "partial":
            return None
        return PartialParams(
            head=method.train == "head",
            last_layers=method.last_layers or 0,
            extra_layers=method.extra_layers or 0,
        )

    def _prompt(self, size: Dimensions | None) -> PromptParams | None:
        """Virtual tokens of the methods that have them."""
        method = self.job.method
        if method.type not in DEFAULT_VIRTUAL_TOKENS:
            return None
        tokens, projection = method.virtual_tokens, method.projection_size
        if tokens is None:
            tokens = DEFAULT_VIRTUAL_TOKENS[method.type]
            self.say("method.virtual_tokens", tokens, f"the default of method {method.type}")
        if method.type == "prefix_tuning" and projection is None and size is not None:
            projection = size.hidden_size
            self.say("method.projection_size", projection, "the model's width")
        return PromptParams(
            virtual_tokens=tokens, projection_size=projection, adapter_layers=method.adapter_layers
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

    def _host_memory_bytes(self, workers: int) -> int:
        """What all workers together may take of the memory where they run."""
        compute, here = self.job.compute, self.hardware.memory_bytes(workers)
        if compute.memory_bytes is None:
            return here
        wanted = workers * compute.memory_bytes
        if wanted > here:
            who = batch.counted_workers(workers)
            verb = "have" if isinstance(self.hardware, ClusterNodes) else "has"
            why = f"{who} want {bytes_text(wanted)}, {self.hardware.host} {verb} {bytes_text(here)}"
            self.refuse("compute.memory", compute.memory, why, "lower it, use fewer workers, or leave it out")
        return min(wanted, here)

    def _size(
        self, size: Dimensions | None, workers: int, sequences: int, precision: Precision
    ) -> sizing.Sizing:
        job, gpu = self.job, self.hardware.gpu
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
            gpu_memory_bytes=gpu.memory_bytes if gpu else None,
            host_memory_bytes=self._host_memory_bytes(workers),
            host=self.hardware.host,
        )
        sized = sizing.choose(request)
        self.derived += sized.derived
        if sized.estimate is not None:
            self.derived += sizing.memory_lines(request, sized.estimate)
        if sized.misfit is not None:
            way_out = "use method lora, a shorter max_length or a smaller model; --rehearse tries it here"
            self.refuse("strategy.type", job.strategy.type, f"does not fit: {sized.misfit}", way_out)
        return sized


def has_precision(gpu: Gpu | None, precision: Precision) -> bool:
    """Whether workers on `gpu` (None: on cores) compute in it. A GPU of which nothing is known is taken for a
    new one."""
    if gpu is None:
        return precision != "fp16"
    known = catalog.find(gpu.name)
    capability = gpu.compute_capability or (known.compute_capability if known else BF16_CAPABILITY)
    return precision != "bf16" or capability >= BF16_CAPABILITY


def _interval(value: float | Literal["epoch"]) -> float | None:
    return None if value == "epoch" else value
