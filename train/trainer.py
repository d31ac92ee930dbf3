"""transformers' Trainer, with our data order, our loss, our metrics, and saving left to the checkpointer."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers.utils
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from artifacts.contract import IGNORED_LABEL, TOKENIZER_FOLDER, canonical_json
from artifacts.manifest import ArtifactWriter
from train import loss, metrics, strategies, weights
from train.attempts import check_current
from train.data.collate import Collator, Rows
from train.data.order import RankBatches
from train.schedule import Schedule
from train.stage import StageError

# Trainer's module would import datasets and pandas (1.3 s), only to compare types with what we don't use.
transformers.utils.is_datasets_available = lambda: False
from transformers import Trainer  # noqa: E402


class RankTrainer(Trainer):
    """Trains on one rank. `task` is the `train.loop.TrainTask`; the splits are prepared ones.

    The loss is the mean over the supervised tokens of an optimizer step, over all ranks and micro-batches,
    however unequally they are spread.
    """

    def __init__(
        self,
        *,
        task: Any,
        model: Any,
        arguments: TrainingArguments,
        schedule: Schedule,
        collator: Collator,
        train_split: Any,
        eval_split: Any | None,
    ) -> None:
        self.task, self.schedule = task, schedule
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.flops = metrics.count_weights(base)
        self.slices_logits = loss.slices_logits(base)
        self.loss_installed = loss.install(base)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=Rows(train_split),
            eval_dataset=Rows(eval_split) if eval_split is not None else None,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(_StepBoundary(self))
        self.loss_is_scaled_for_ga = True
        self.meter = metrics.Meter()
        self.stop_votes = 0
        self.stopped = False
        self._rows = (
            metrics.writer(task.store, task.prefix, task.attempt) if self.is_world_process_zero() else None
        )

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.task.params.strategy != "fsdp":
            return
        # accelerate 1.15 silently makes FSDP a DDP on CPU; and its plugin rounds the loss in mixed precision.
        from accelerate.utils import DistributedType

        state = self.accelerator.state
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = strategies.fsdp_plugin(self.task.params, on_gpu=self.args.device.type == "cuda")
        self.is_fsdp_enabled = True

    # -- data ------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_dataset, self.args.per_device_train_batch_size, seed=self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._loader(
            eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size, seed=None
        )

    def _loader(self, rows: Any, micro_batch_size: int, *, seed: int | None) -> DataLoader[Any]:
        batches = RankBatches(len(rows), micro_batch_size, self.task.world_size, self.task.rank, seed=seed)
        if seed is not None:
            self.train_batches = batches
        return DataLoader(
            rows,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator(),  # its own: drawing from the global one would disturb dropout
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro-batches of one optimizer step, and the number of supervised tokens in them over all
        ranks.

        The ranks' token counts and their votes to stop travel in one collective, on the host.
        """
        started = time.perf_counter()
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self.meter.data_wait_s += time.perf_counter() - started
        counts = torch.tensor(
            [
                sum(int((batch["targets"] != IGNORED_LABEL).sum()) for batch in batches),
                sum(batch["real_tokens"] for batch in batches),
                sum(batch["targets"].numel() for batch in batches),
                int(self.task.should_stop()),
            ]
        )
        if self.task.world_size > 1:
            dist.all_reduce(counts)
        supervised, real, total, self.stop_votes = counts.tolist()
        self.meter.tokens.add(supervised, real, total)
        return batches, max(supervised, 1)

    # -- loss ------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """This micro-batch's share of the step's mean loss, times the world size: every strategy averages
        gradients over ranks."""
        total = self._summed_loss(model, inputs)
        return total * (self.task.world_size / num_items_in_batch)

    def _summed_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        return loss.summed_loss(
            model, inputs, installed=self.loss_installed, slices_logits=self.slices_logits
        )

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # counted in `metrics`

    def store_flos(self) -> None:
        """Nothing: spares a collective each logged step."""

    # -- metrics ---------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """A training row for the step just done. Every rank calls this."""
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise StageError(
                f"the loss is {logs['loss']} at step {self.state.global_step}",
                "lower training.learning_rate, or set training.precision to bf16 or fp32",
            )
        tokens, elapsed_s, data_wait_s = self.meter.take()
        worst = torch.tensor([data_wait_s, float(metrics.peak_memory_bytes())], dtype=torch.float64)
        if self.task.world_size > 1:
            dist.all_reduce(worst, op=dist.ReduceOp.MAX)
        if self._rows is None:
            return
        data_wait_s, memory_bytes = worst.tolist()
        peak = self.task.params.peak_flops_per_second
        row = metrics.step_row(
            step=self.state.global_step,
            epoch=self.state.epoch or 0.0,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs.get("grad_norm"),
            tokens=tokens,
            elapsed_s=elapsed_s,
            data_wait_s=data_wait_s,
            memory_bytes=int(memory_bytes),
            attempt=self.task.attempt,
            flops=self.flops,
            peak_flops_per_second=peak * self.task.world_size if peak else None,
        )
        self._rows.append(row)
        if self.task.events is not None:
            self.task.events.progress(
                self.state.global_step,
                self.schedule.max_steps,
                "steps",
                loss=row["loss"],
                tokens_per_second=row["tokens_per_second"],
                epoch=row["epoch"],
            )

    def flush_metrics(self) -> None:
        if self._rows is not None:
            self._rows.flush()

    # -- evaluation ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean loss over the supervised tokens of the whole evaluation split, on all ranks."""
        self.meter.pause()
        model = self.model_wrapped
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with self.accelerator.autocast():
                sums[0] += self._summed_loss(model, inputs).double().cpu()
            sums[1] += int((batch["targets"] != IGNORED_LABEL).sum())
        strategies.reshard(model)
        if self.task.world_size > 1:
            dist.all_reduce(sums)
        model.train()
        eval_loss = float(sums[0] / max(sums[1].item(), 1.0))
        if self._rows is not None and math.isfinite(eval_loss):
            row = metrics.evaluation_row(
                step=self.state.global_step,
                epoch=self.state.epoch or 0.0,
                eval_loss=eval_loss,
                attempt=self.task.attempt,
            )
            self._rows.append(row)
        self.meter.go_on()
        answer = {"eval_loss": eval_loss}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, answer)
        return answer

    # -- saving ----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.task.checkpointer is None:
            return
        self.meter.pause()
        self.flush_metrics()
        self.task.checkpointer.save(self, self.state.global_step)
        self.meter.go_on()

    def write_checkpoint(self, folder: Path) -> None:
        """Write what a resumed training needs into `folder`, as transformers' Trainer reads it back; an
        adapter is always whole, as safetensors. Every rank calls it and writes its own files; the folder may
        be this rank's alone."""
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        if self.task.params.method == "lora":
            weights.write_adapter(
                model, folder, base_name=self.task.base_name, writes=self.is_world_process_zero()
            )
        elif self.task.params.strategy == "ddp" and self.is_world_process_zero():
            model.save_pretrained(folder)
        lean = self.task.params.method == "lora" and self.is_deepspeed_enabled
        with weights.without_frozen(self.model_wrapped) if lean else contextlib.nullcontext():
            self._save_optimizer_and_scheduler(str(folder))  # and sharded weights
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        if self.is_world_process_zero():
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def write_final(self) -> None:
        """Commit `final/`: what was trained, its tokenizer and template, and the metrics of all attempts.
        Every rank calls it; rank 0 writes."""
        writes = self.is_world_process_zero()
        folder = self.task.work / "final"
        if writes:
            shutil.rmtree(folder, ignore_errors=True)
        model = self.accelerator.unwrap_model(self.model)
        if self.task.params.method == "lora":
            weights.write_adapter(model, folder, base_name=self.task.base_name, writes=writes)
        else:
            weights.write_model(model, folder, base=self.task.model, writes=writes)
        if not writes:
            return
        weights.copy_tokenizer(self.task.prepared / TOKENIZER_FOLDER, folder)
        self.flush_metrics()
        artifact = ArtifactWriter(self.task.store, f"{self.task.prefix}/final")
        artifact.add_folder(folder, move=True)
        rows = metrics.merged_from(self.task.store, self.task.prefix)
        artifact.write_bytes("metrics.jsonl", b"".join(canonical_json(row) + b"\n" for row in rows))
        check_current(self.task.store, self.task.prefix, self.task.attempt)
        artifact.commit(method=self.task.params.method, steps=self.state.global_step)


class _StepBoundary(TrainerCallback):
    """What happens between two steps: the epoch's order, evaluating and saving on time, stopping on
    request."""

    def __init__(self, trainer: RankTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.meter = metrics.Meter()
        if self.trainer.task.params.strategy == "fsdp":
            strategies.check_sharded(self.trainer.model_wrapped, self.trainer.task.world_size)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.train_batches.epoch = state.global_step // self.trainer.schedule.steps_per_epoch

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        trainer, step = self.trainer, state.global_step
        trainer.task.on_step(step)
        control.should_log |= step == trainer.schedule.max_steps
        control.should_evaluate = trainer.eval_dataset is not None and trainer.schedule.evaluates(step)
        control.should_save = trainer.schedule.saves(step)
        if trainer.stop_votes and step < trainer.schedule.max_steps:
            control.should_log = control.should_save = control.should_training_stop = True
            trainer.stopped = True
