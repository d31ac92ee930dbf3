"""A trainer's state into a checkpoint's files and out of them, and its weights into `final/`."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from artifacts.contract import TOKENIZER_FOLDER, canonical_json
from artifacts.manifest import ArtifactWriter
from train import methods, metrics, trackers, weights
from train.attempts import check_current


def saves_adapter(trainer: Any) -> bool:
    """Whether what is trained lies beside the model's own weights, and is saved alone."""
    return hasattr(trainer.accelerator.unwrap_model(trainer.model), "peft_config")


def write_checkpoint(trainer: Any, folder: Path) -> None:
    """Write what a resumed training needs into `folder`, as transformers' Trainer reads it back; an adapter
    is always whole, as safetensors. Every rank calls it and writes its own files; the folder may be this
    rank's alone."""
    folder.mkdir(parents=True, exist_ok=True)
    task, writes = trainer.task, trainer.is_world_process_zero()
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapter = saves_adapter(trainer)
    if adapter:
        weights.write_adapter(
            model, folder, base_name=task.base_name, base_revision=task.base_revision, writes=writes
        )
    elif task.params.strategy in ("single", "ddp") and writes:
        model.save_pretrained(folder)
    with _as_little_as_needed(trainer):
        if methods.has_virtual_tokens(task.params.method):
            weights.write_trained(model, folder, writes=writes)
        trainer._save_optimizer_and_scheduler(str(folder))  # and sharded weights
    trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))
    if writes:
        trainer.state.save_to_json(str(folder / "trainer_state.json"))


def _as_little_as_needed(trainer: Any) -> contextlib.AbstractContextManager[None]:
    """While it lasts, transformers saves no weights that are frozen or are written beside."""
    if trainer.is_deepspeed_enabled and saves_adapter(trainer):
        return weights.without_frozen(trainer.model_wrapped)
    if trainer.is_fsdp_enabled and methods.has_virtual_tokens(trainer.task.params.method):
        return weights.without_sharded_model()
    return contextlib.nullcontext()


def load_weights(trainer: Any, folder: Path) -> None:
    """Put a checkpoint's weights into the trained model. Every rank calls."""
    if trainer.is_deepspeed_enabled:
        deepspeed_load_checkpoint(
            trainer.model_wrapped, str(folder), load_module_strict=not saves_adapter(trainer)
        )
    else:
        trainer._load_from_checkpoint(str(folder), trainer.model_wrapped if trainer.is_fsdp_enabled else None)


def write_final(trainer: Any) -> None:
    """Commit `final/`: what was trained, its tokenizer and template, and the metrics of all attempts. Every
    rank calls it; rank 0 writes."""
    task, writes = trainer.task, trainer.is_world_process_zero()
    step = trainer.state.global_step
    if trainer.best_step not in (None, step):
        step = trainer.best_step
        load_weights(trainer, task.checkpointer.folder_of(step))
        trainer.progress.say(
            f"final is of step {step}, whose evaluation loss {trainer.state.best_metric:.4g} is lowest"
        )
    folder = task.work / "final"
    if writes:
        shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if saves_adapter(trainer):
        weights.write_adapter(
            model,
            folder,
            base_name=task.base_name,
            base_revision=task.base_revision,
            writes=writes,
            for_base=True,
        )
    else:
        weights.write_model(model, folder, base=task.model, writes=writes)
    if not writes:
        return
    weights.copy_tokenizer(task.prepared / TOKENIZER_FOLDER, folder)
    trainer.progress.flush()
    artifact = ArtifactWriter(task.store, f"{task.prefix}/final")
    artifact.add_folder(folder, move=True)
    rows = metrics.merged_from(task.store, task.prefix)
    artifact.write_bytes("metrics.jsonl", b"".join(canonical_json(row) + b"\n" for row in rows))
    artifact.write_bytes(trackers.EVENT_FILE, trackers.event_file(rows))
    check_current(task.store, task.prefix, task.attempt)
    artifact.commit(method=task.params.method, steps=step)
