"""The training of a job, resolved: every value that the job leaves out is derived, with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from artifacts.contract import Engine, Precision, Product, Quantization, TrainParams
from launcher.dimensions import Dimensions
from launcher.planning import (
    attention,
    batch,
    batches,
    cells,
    compute,
    length,
    matrix,
    method,
    precision,
    products,
    sizing,
    trainable,
)
from launcher.planning.findings import Findings
from launcher.planning.matrix import Cell
from launcher.spec.products import After


@dataclass(frozen=True)
class Resolved:
    """What a plan needs beside data and model."""

    engine: Engine
    packing: bool
    after: list[After]
    published: list[Product]
    train: TrainParams


def resolve(
    found: Findings, size: Dimensions | None, quantized_by: str | None, fresh: str | None
) -> Resolved | None:
    """Everything that the job leaves open, decided for what it runs on and the model's `size`; None where
    problems leave it open. `found` collects problems and reasons. `quantized_by` is the `quant_method` of the
    model's config.json."""
    engine = compute.engine(found)
    workers = compute.workers(found)
    accelerator = compute.accelerator(found)
    number_format = precision.choose(found)
    attention.check(found, number_format)
    method.check_model(found, size)
    quantization = method.quantization(found, quantized_by)
    cell = _cell(found, size, number_format, quantization)
    packing = cells.packing(found, cell)
    after = cells.after(found, cell)
    cell = dataclasses.replace(cell, packing=packing, merge="merge" in after)
    whole = cells.is_whole(cell)
    products.check(found, size, after, whole=whole)
    published = products.published(found, after, whole=whole)
    cells.refuse(found, cell, strategy_is_open=found.job.strategy.type == "auto")
    lora = method.lora(found)
    sequences = batches.global_batch(found, workers)
    if sequences is None or found.hardware.refusal(workers):
        return None  # what so many would need is no news
    sized = _size(found, size, workers, sequences, cell)
    accumulation = sequences // (workers * sized.micro_batch_size)
    found.say(
        "training.gradient_accumulation_steps",
        accumulation,
        batch.arithmetic(sized.micro_batch_size, accumulation, workers),
    )
    job, training = found.job, found.job.training
    params = TrainParams(
        method=job.method.type,
        lora=lora,
        partial=method.partial(found),
        prompt=method.prompt(found, size),
        quantization=quantization,
        optimizer=training.optimizer,
        attention=training.attention,
        neftune_alpha=training.neftune_alpha,
        label_smoothing=training.label_smoothing,
        early_stopping=training.early_stopping,
        best_model=training.best_model,
        sharding=job.strategy.sharding,
        epochs=length.epochs(found),
        steps=training.steps,
        learning_rate=length.learning_rate(found),
        schedule=training.schedule,
        warmup_steps=training.warmup_steps,
        warmup_share=length.warmup_share(found),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        micro_batch_size=sized.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        world_size=workers,
        max_length=training.max_length,
        precision=number_format,
        gradient_checkpointing=sized.gradient_checkpointing,
        seed=training.seed,
        evaluate_every=_interval(training.evaluate_every),
        save_every=_interval(training.save_every),
        log_every_steps=training.log_every,
        keep=training.keep,
        strategy=sized.strategy,
        offload=sized.offload,
        accelerator=accelerator.name if accelerator else None,
        peak_flops_per_second=accelerator.peak_flops_per_second(number_format) if accelerator else None,
        fresh=fresh,
    )
    return Resolved(engine, packing, after, published, params)


def _cell(
    found: Findings, size: Dimensions | None, number_format: Precision, quantization: Quantization
) -> Cell:
    """The job as a cell of the matrix, as it was written: before anything is derived."""
    job, strategy = found.job, found.job.strategy.type
    return Cell(
        method=job.method.type,
        strategy="ddp" if strategy == "auto" else strategy,
        quantization=quantization,
        precision=number_format,
        device="gpu" if found.hardware.gpu else "cpu",
        optimizer=job.training.optimizer,
        gradient_checkpointing=job.training.gradient_checkpointing is True,
        original=job.merge.original is not None,
        options=method.options(job.method),
        architecture=size.architecture if size else "",
    )


def _size(
    found: Findings, size: Dimensions | None, workers: int, sequences: int, cell: Cell
) -> sizing.Sizing:
    job, gpu = found.job, found.hardware.gpu
    checkpointing = job.training.gradient_checkpointing
    request = sizing.Request(
        dimensions=size,
        trainable=trainable.parameters(size, job.method) if size else 0,
        frozen=trainable.frozen(size, job.method) if size else 0,
        quantization=cell.quantization,
        optimizer=cell.optimizer,
        shards=compute.workers_per_node(found, workers) if job.strategy.sharding == "hybrid" else None,
        precision=cell.precision,
        workers=workers,
        sequences_per_worker=sequences // workers,
        max_length=job.training.max_length,
        strategy=job.strategy.type,
        fitting=cells.fitting_strategies(cell),
        offload=job.strategy.offload,
        gradient_checkpointing=False if cells.never_recomputes(found, cell) else checkpointing,
        micro_batch_size=job.training.micro_batch_size,
        gpu_memory_bytes=gpu.memory_bytes if gpu else None,
        host_memory_bytes=compute.host_memory_bytes(found, workers),
        host=found.hardware.host,
    )
    sized = sizing.choose(request)
    found.derived += sized.derived
    if sized.estimate is not None:
        found.derived += sizing.memory_lines(request, sized.estimate)
    if sized.misfit is not None:
        leaner = "method lora" if cell.method not in matrix.ADAPTERS else "quantization: nf4"
        way_out = f"use {leaner}, a shorter max_length or a smaller model; --rehearse tries it here"
        found.refuse("strategy.type", job.strategy.type, f"does not fit: {sized.misfit}", way_out)
    return sized


def _interval(value: float | Literal["epoch"]) -> float | None:
    return None if value == "epoch" else value
