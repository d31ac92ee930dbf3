"""transformers' Trainer, with our data order, our loss, our metrics, and saving left to the checkpointer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers.utils
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from artifacts.contract import IGNORED_LABEL
from train import loss, metrics, neftune, optimizers, strategies, weights
from train.boundary import StepBoundary
from train.data.collate import Collator, Rows
from train.data.order import RankBatches
from train.progress import Progress
from train.schedule import Schedule
from train.stage import StageError

# Trainer's module would import datasets and pandas (1.3 s), only to compare types with what we don't use.
transformers.utils.is_datasets_available = lambda: False
from transformers import Trainer  # noqa: E402

from train import saving  # noqa: E402


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
        self.noise = None
        if task.params.neftune_alpha is not None:
            self.noise = neftune.Noise(base.get_input_embeddings(), task.params.neftune_alpha)
        self.shard_size = strategies.shard_group_size(task.params, strategies.ranks_per_node(task.world_size))
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=Rows(train_split),
            eval_dataset=Rows(eval_split) if eval_split is not None else None,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(StepBoundary(self))
        self.loss_is_scaled_for_ga = True
        self.meter = metrics.Meter()
        self.stop_votes = 0
        self.stopped = False
        self.progress = Progress(task, writes=self.is_world_process_zero())

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.task.params.strategy != "fsdp":
            return
        strategies.use_fsdp(
            self.accelerator.state, self.task.params, self.shard_size, device_type=self.args.device.type
        )
        self.is_fsdp_enabled = True

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            decayed = self.get_decay_parameter_names(trained)
            kind = optimizers.for_strategy(kind, self.task.params)
            self.optimizer = kind(optimizers.groups(trained, self.task.params, decayed), **options)
            optimizers.keep_embeddings_exact(self.optimizer, trained)
        return self.optimizer

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
        if self.noise is not None:
            self.noise.seeing(inputs["position_ids"])
        total = self._summed_loss(model, inputs, label_smoothing=self.task.params.label_smoothing)
        return total * (self.task.world_size / num_items_in_batch)

    def _summed_loss(self, model: Any, inputs: Any, label_smoothing: float = 0.0) -> torch.Tensor:
        return loss.summed_loss(
            model,
            inputs,
            installed=self.loss_installed,
            slices_logits=self.slices_logits,
            label_smoothing=label_smoothing,
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
        self.progress.step(row, self.schedule.max_steps)

    # -- evaluation ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean loss over the supervised tokens of the whole evaluation split, on all ranks; without label
        smoothing, so that it tells the perplexity whatever the training's loss is."""
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
        if math.isfinite(eval_loss):
            row = metrics.evaluation_row(
                step=self.state.global_step,
                epoch=self.state.epoch or 0.0,
                eval_loss=eval_loss,
                attempt=self.task.attempt,
            )
            self.progress.append(row)
        self.meter.go_on()
        answer = {"eval_loss": eval_loss}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, answer)
        return answer

    # -- saving ----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.task.checkpointer is None:
            return
        self.meter.pause()
        self.progress.flush()
        self.task.checkpointer.save(self, self.state.global_step)
        self.meter.go_on()

    @property
    def best_step(self) -> int | None:
        """The step whose checkpoint has to stay for the end."""
        return self.state.best_global_step if self.task.params.best_model else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_deepspeed_enabled or not weights.read_trained(self.model, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def write_checkpoint(self, folder: Path) -> None:
        saving.write_checkpoint(self, folder)

    def write_final(self) -> None:
        saving.write_final(self)
